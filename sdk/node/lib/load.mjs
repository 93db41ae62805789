// A version's code, from its entry, and the agent that it exports. What is loaded is fresh: no module of it has been
// evaluated before in this process, not even where the same package was loaded before.
import { readFileSync, realpathSync } from 'node:fs';
import Module, { createRequire } from 'node:module';
import { join, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import { types } from 'node:util';
import { RpcFault, SERVER_ERROR } from './faults.mjs';

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

const loadedEntries = []; // real paths
const required = createRequire(import.meta.url).cache; // of all CommonJS modules of this process
let generations = 0; // of packages that were loaded again

export class Code {
  #purged; // path → CommonJS module of an earlier load of the same package

  /** The entry that the runner was started for. */
  static own(entry) {
    return new Code(process.cwd(), resolve(entry), entry);
  }

  static of(root, entry) {
    return new Code(root, join(root, entry), entry);
  }

  constructor(root, path, entry) {
    this.root = root;
    this.path = path;
    this.entry = entry; // as messages name it
  }

  /** undefined where the package has none that can be read: then `init` tells it. */
  manifest() {
    try {
      return JSON.parse(readFileSync(join(this.root, 'manifest.json'), 'utf8'));
    } catch {
      return undefined;
    }
  }

  /** Default export: a class, or an object with hooks; in CommonJS module.exports; else the module's own exports. */
  async load() {
    const module = await import(this.#url().href);
    return module.default?.__esModule ? module.default.default : (module.default ?? module);
  }

  /** Puts back what an earlier load of the same package had required. */
  unload() {
    if (this.#purged === undefined) return;
    for (const path of below(realPath(this.root))) delete required[path];
    for (const [path, module] of this.#purged) required[path] = module;
  }

  #url() {
    const url = pathToFileURL(this.path);
    const root = realPath(this.root);
    const isLoadedAgain = loadedEntries.some((entry) => isBelow(entry, root));
    loadedEntries.push(realPath(this.path));
    if (!isLoadedAgain) return url;
    this.#purge(root);
    registerGenerations();
    generations += 1;
    url.searchParams.set('kai', String(generations));
    url.searchParams.set('kaiRoot', pathToFileURL(root + sep).href);
    return url;
  }

  #purge(root) {
    const paths = below(root);
    // require() of an ES module (Node 20.19) goes past the hooks of module.register: it would be the old one again.
    const module = paths.find((path) => types.isModuleNamespaceObject(required[path].exports));
    if (module !== undefined) throw cannotLoadAgain(`${module} is an ES module that was loaded by require()`);
    this.#purged = new Map();
    for (const path of paths) {
      this.#purged.set(path, required[path]);
      delete required[path];
    }
  }
}

/** The version's class constructed with the context, or the object that it exports. */
export function makeAgent(exported, context, entry) {
  const agent = isConstructor(exported) ? new exported(context) : exported;
  if (!HOOKS.some((hook) => typeof agent?.[hook] === 'function')) {
    throw new TypeError(
      `${entry}: the default export is neither a class nor an object with one of the hooks ${HOOKS.join(', ')}`,
    );
  }
  return agent;
}

let registered = false;

/** From now on each import asks a worker thread; a process that loads no package twice never starts it. */
function registerGenerations() {
  if (registered) return;
  if (Module.register === undefined) {
    throw cannotLoadAgain(`Node ${process.version} has no module.register (18.19 and 20.6 have it)`);
  }
  Module.register('./generations.mjs', import.meta.url);
  registered = true;
}

function cannotLoadAgain(why) {
  const text = `this package was loaded before in this process and cannot be loaded fresh: ${why}; upgrade hard`;
  return new RpcFault(SERVER_ERROR, text, { code: 'AGENT_ERROR' });
}

function below(root) {
  return Object.keys(required).filter((path) => isBelow(path, root));
}

function isBelow(path, root) {
  return path.startsWith(root.endsWith(sep) ? root : root + sep);
}

/** As Node names modules; a path that is not there stays, and importing it tells so. */
function realPath(path) {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function isConstructor(value) {
  return typeof value === 'function' && value.prototype !== undefined;
}
