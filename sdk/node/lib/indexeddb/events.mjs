// Events that go from a request to its transaction and on to the connection: Node's EventTarget has no parents, so
// listeners and dispatch (DOM standard, 2.9) are here.
import { checkArguments, defineInterface, slots } from './web_idl.mjs';

const parent = Symbol('parent');
const listeners = Symbol('listeners');

/** The object that events of `target` go on to; null ends the path. */
export function setParent(target, next) {
  target[parent] = next;
}

export class PropagatingTarget extends EventTarget {
  constructor() {
    super();
    for (const [name, value] of [
      [parent, null],
      [listeners, []],
    ]) {
      Object.defineProperty(this, name, { value, writable: true });
    }
  }

  addEventListener(type, callback, options) {
    checkArguments(arguments, 2, 'addEventListener');
    if (callback === null || callback === undefined) return;
    if (typeof callback !== 'function' && typeof callback !== 'object') throw new TypeError('a listener is a function');
    const {
      capture = false,
      once = false,
      signal,
    } = typeof options === 'object' && options ? options : { capture: options };
    if (signal?.aborted) return;
    const listener = { type: String(type), callback, capture: Boolean(capture), once: Boolean(once), removed: false };
    if (this[listeners].some((other) => same(other, listener))) return;
    this[listeners].push(listener);
    signal?.addEventListener('abort', () => remove(this, listener), { once: true });
  }

  removeEventListener(type, callback, options) {
    checkArguments(arguments, 2, 'removeEventListener');
    const capture = Boolean(typeof options === 'object' && options ? options.capture : options);
    remove(this, { type: String(type), callback, capture });
  }

  dispatchEvent(event) {
    if (!(event instanceof Event)) throw new TypeError('dispatchEvent: an Event is required');
    if (event[slots]?.dispatching) {
      throw new DOMException('The event is already being dispatched.', 'InvalidStateError');
    }
    dispatch(this, event);
    return !event.defaultPrevented;
  }
}

function same(one, other) {
  return one.type === other.type && one.callback === other.callback && one.capture === other.capture;
}

function remove(target, listener) {
  const index = target[listeners].findIndex((other) => same(other, listener));
  if (index === -1) return;
  target[listeners][index].removed = true;
  target[listeners].splice(index, 1);
}

/** The attribute onNAME: one listener, in the place where the first one was set. */
export function defineHandlers(constructor, names) {
  for (const name of names) {
    const handler = Symbol(`on${name}`);
    Object.defineProperty(constructor.prototype, `on${name}`, {
      enumerable: true,
      configurable: true,
      get() {
        return this[handler]?.callback ?? null;
      },
      set(value) {
        const callback = typeof value === 'function' || (typeof value === 'object' && value) ? value : null;
        if (this[handler] === undefined) {
          if (callback === null) return;
          Object.defineProperty(this, handler, { value: { callback: null } });
          const held = this[handler];
          held.listener = function (event) {
            if (typeof held.callback === 'function' && held.callback.call(this, event) === false)
              event.preventDefault();
          };
        }
        const held = this[handler];
        // Setting null gives the place up.
        if (callback === null) this.removeEventListener(name, held.listener);
        else if (held.callback === null) this.addEventListener(name, held.listener);
        held.callback = callback;
      },
    });
  }
}

/** Node's Event knows no path: target, phase and the stop flags are kept here, on the event itself. */
function prepare(event, target) {
  if (event[slots] === undefined) {
    Object.defineProperty(event, slots, { value: {} });
    const state = event[slots];
    const attribute = (name, get) => Object.defineProperty(event, name, { get, configurable: true });
    attribute('target', () => state.target);
    attribute('srcElement', () => state.target);
    attribute('currentTarget', () => state.currentTarget);
    attribute('eventPhase', () => state.phase);
    attribute('cancelBubble', () => state.stopped);
    const method = (name, value) => Object.defineProperty(event, name, { value, configurable: true });
    method('composedPath', () => [...state.path]);
    method('stopPropagation', () => (state.stopped = true));
    method('stopImmediatePropagation', () => (state.stopped = state.stoppedAtOnce = true));
  }
  return Object.assign(event[slots], {
    target,
    currentTarget: null,
    phase: Event.NONE,
    stopped: false,
    stoppedAtOnce: false,
    dispatching: true,
    threw: false,
    path: [],
  });
}

/** Whether a listener threw: such an error is reported as uncaught, and a transaction has to abort for it. */
export function dispatch(target, event) {
  const state = prepare(event, target);
  for (let next = target; next !== null; next = next[parent]) state.path.push(next);
  const ancestors = state.path.slice(1);
  for (const ancestor of [...ancestors].reverse()) invoke(ancestor, event, state, Event.CAPTURING_PHASE, true);
  invoke(target, event, state, Event.AT_TARGET, true);
  invoke(target, event, state, Event.AT_TARGET, false);
  if (event.bubbles) for (const ancestor of ancestors) invoke(ancestor, event, state, Event.BUBBLING_PHASE, false);
  Object.assign(state, { phase: Event.NONE, currentTarget: null, dispatching: false, path: [] });
  return state.threw;
}

function invoke(target, event, state, phase, capture) {
  if (state.stopped) return;
  state.phase = phase;
  state.currentTarget = target;
  for (const listener of [...target[listeners]]) {
    if (listener.removed || listener.type !== event.type || listener.capture !== capture) continue;
    if (listener.once) remove(target, listener);
    try {
      if (typeof listener.callback === 'function') listener.callback.call(target, event);
      else listener.callback.handleEvent(event);
    } catch (error) {
      state.threw = true;
      process.nextTick(() => {
        throw error;
      });
    }
    if (state.stoppedAtOnce) return;
  }
}

export class IDBVersionChangeEvent extends Event {
  #oldVersion;
  #newVersion;

  constructor(type, init = {}) {
    super(type, init);
    this.#oldVersion = init?.oldVersion ?? 0;
    this.#newVersion = init?.newVersion ?? null;
  }

  get oldVersion() {
    return this.#oldVersion;
  }
  get newVersion() {
    return this.#newVersion;
  }
}
defineInterface(IDBVersionChangeEvent, 'IDBVersionChangeEvent');

export const successEvent = () => new Event('success');
export const errorEvent = () => new Event('error', { bubbles: true, cancelable: true });
