// The entry module → the agent.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const HOOKS = [
  'onInit',
  'onStart',
  'onMessage',
  'onUpgrade',
  'onShutdown',
  'onError',
  'onHealthCheck',
  'saveState',
  'restoreState',
];

/** Default export: a class, or an object with hooks; in CommonJS module.exports; else the module's own exports. */
export async function loadAgent(entry, context) {
  const module = await import(pathToFileURL(resolve(entry)).href);
  const exported = module.default?.__esModule ? module.default.default : (module.default ?? module);
  const agent = isConstructor(exported) ? new exported(context) : exported;
  if (!HOOKS.some((hook) => typeof agent?.[hook] === 'function')) {
    throw new TypeError(
      `${entry}: the default export is neither a class nor an object with one of the hooks ${HOOKS.join(', ')}`,
    );
  }
  return agent;
}

function isConstructor(value) {
  return typeof value === 'function' && value.prototype !== undefined;
}
