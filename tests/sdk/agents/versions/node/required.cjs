let counted = 0;
exports.count = () => (counted += 1);
exports.late = async () => {
  const { count } = await import('./late_of_cjs.mjs');
  return count();
};
