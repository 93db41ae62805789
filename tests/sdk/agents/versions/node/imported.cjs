let counted = 0;
exports.count = () => (counted += 1);
