// Tasks in the sense of the HTML standard: one at a time, each followed by all the microtasks that it led to. Only then
// has "control returned to the event loop", which is when a transaction stops being active.

const queue = [];
let running = false;

/** Node runs what is given to nextTick from within a microtask when no microtask is left. */
export function afterMicrotasks(step) {
  queueMicrotask(() => process.nextTick(step));
}

/** `run` may return a step that is to be taken after the microtasks, as the end of the same task. */
export function queueTask(run) {
  queue.push(run);
  if (running) return;
  running = true;
  afterMicrotasks(runNext);
}

/** A task as a promise, kept when it has ended. */
export function task(run) {
  return new Promise((resolve) => {
    queueTask(() => {
      const end = run();
      return () => {
        end?.();
        resolve();
      };
    });
  });
}

function runNext() {
  const run = queue.shift();
  if (run === undefined) {
    running = false;
    return;
  }
  const end = run();
  afterMicrotasks(() => {
    end?.();
    runNext();
  });
}
