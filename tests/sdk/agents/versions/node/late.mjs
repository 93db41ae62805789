import * as part from './part.mjs';
let counted = 0;
export const where = import.meta.url;
export const count = () => (counted += 1);
export { part };
