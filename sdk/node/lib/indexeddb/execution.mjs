// The life of one transaction: its operations go to the host in the order in which they were placed, without waiting
// for each other's answers; the answers come back as tasks in that order; when a task leaves no request behind, the
// transaction commits.
import { abortError, concernsOneRequest, fromHostError } from './errors.mjs';
import { dispatch, errorEvent, successEvent } from './events.mjs';
import { settle } from './request.mjs';
import { afterMicrotasks, queueTask } from './tasks.mjs';

export class Execution {
  #host;
  #target; // the IDBTransaction, where complete and abort are fired
  #id; // the host's, once it has begun
  #operations = []; // not yet sent
  #sending = true; // also while it waits for its turn
  #requests = []; // placed, their events not yet fired
  #delivery = Promise.resolve(); // kept when all that was sent has been answered and its task queued
  #drained; // called when there is no request left
  #undo = [];
  #resolveFinished;

  /** active, inactive, committing or finished */
  state = 'inactive';
  error = null;
  /** Writes that were sent: what a cursor has read ahead is of before the next one. */
  writes = 0;
  /** id of an object store → its key generator's current number */
  generators = new Map();
  /** { committed }, once complete or abort has been fired */
  finished = new Promise((resolve) => (this.#resolveFinished = resolve));
  /** The database as the host describes it when the transaction runs; undefined where it could not begin. */
  begun;

  constructor(host, target, parameters) {
    this.#host = host;
    this.#target = target;
    this.begun = this.#begin(parameters);
  }

  async #begin(parameters) {
    let answer;
    try {
      answer = await this.#host.call('begin', parameters);
    } catch (error) {
      this.abort(fromHostError(error));
      return undefined;
    }
    this.#id = answer.transaction;
    if (this.state === 'finished') {
      this.#abortOnHost();
      return undefined;
    }
    for (const { id, nextKey } of answer.database.stores) this.generators.set(id, nextKey);
    this.#send();
    return answer.database;
  }

  /** Active until control returns to the event loop; then it lives by its requests. */
  activate() {
    this.state = 'active';
    afterMicrotasks(() => this.#deactivate());
  }

  #deactivate() {
    if (this.state !== 'active') return;
    this.state = 'inactive';
    if (this.#requests.length === 0) this.commit();
  }

  call(op, params) {
    return this.#host.call(op, { ...params, transaction: this.#id });
  }

  /** What gives a change of the connection back when the transaction aborts. */
  onAbort(undo) {
    this.#undo.push(undo);
  }

  /**
   * run() calls the host, and its value is the request's result. exclusive: nothing else is sent until it has ended,
   * because it asks more than once, or because what comes next needs its answer. arrive() makes the result of the value
   * at the moment when the event is fired. Without a request an error aborts.
   */
  place({ request, run, exclusive = false, arrive = (value) => value }) {
    if (request !== undefined) this.#requests.push(request);
    this.#operations.push({ request, run, exclusive, arrive });
    if (!this.#sending) this.#send();
  }

  async #send() {
    this.#sending = true;
    while (this.#operations.length > 0) {
      const operation = this.#operations.shift();
      const outcome = perform(operation.run);
      this.#delivery = this.#delivery.then(() => outcome).then((done) => this.#answered(operation, done));
      if (operation.exclusive) await outcome;
    }
    this.#sending = false;
  }

  #answered({ request, arrive, answered }, { result, error }) {
    if (this.state === 'finished') return;
    if (error === undefined) {
      answered?.();
      if (request !== undefined) queueTask(() => this.#deliver(request, { result, arrive }));
      return;
    }
    const exception = fromHostError(error);
    const local = request !== undefined && (error === exception || concernsOneRequest(error));
    if (local && this.state !== 'committing') queueTask(() => this.#deliver(request, { error: exception }));
    else this.abort(exception);
  }

  #deliver(request, outcome) {
    if (this.state === 'finished') return undefined; // abort() fires its event
    this.#requests.splice(this.#requests.indexOf(request), 1);
    const { error, result } = arrived(outcome);
    settle(request, { error, result });
    const event = error ? errorEvent() : successEvent();
    const threw = this.dispatchActive(request, event);
    return () => {
      if (this.state === 'active' && !threw && error && !event.defaultPrevented) this.abort(error);
      else this.endTask(threw);
    };
  }

  /** The transaction is active for the listeners, and for the microtasks that follow, until endTask. */
  dispatchActive(target, event) {
    if (this.state === 'inactive') this.state = 'active';
    return dispatch(target, event);
  }

  endTask(threw) {
    // Nothing that listeners do stops a commit() that was called.
    if (threw && this.state === 'active') {
      this.abort(abortError('A listener of an event of this transaction threw.'));
      return;
    }
    if (this.#requests.length === 0) this.#drained?.();
    this.#deactivate();
  }

  commit() {
    this.state = 'committing';
    const delivered = new Promise((resolve) => (this.#drained = resolve));
    if (this.#requests.length === 0) this.#drained();
    const run = async () => {
      const before = this.#delivery;
      await delivered;
      await before;
      if (this.state === 'committing') await this.call('commit');
    };
    this.#operations.push({ run, exclusive: true, answered: () => this.#complete() });
    if (!this.#sending) this.#send();
  }

  #complete() {
    queueTask(() => {
      this.state = 'finished';
      this.onFinished?.();
      dispatch(this.#target, new Event('complete'));
      return () => this.#resolveFinished({ committed: true });
    });
  }

  /** error: null where abort() was called. */
  abort(error) {
    if (this.state === 'finished') return;
    this.error = error;
    this.#operations = [];
    for (const undo of this.#undo.reverse()) undo();
    if (this.#id !== undefined) this.#abortOnHost();
    this.state = 'finished';
    for (const request of this.#requests) {
      queueTask(() => {
        settle(request, { error: abortError() });
        dispatch(request, errorEvent());
      });
    }
    queueTask(() => {
      this.onFinished?.();
      dispatch(this.#target, new Event('abort', { bubbles: true }));
      return () => this.#resolveFinished({ committed: false });
    });
  }

  #abortOnHost() {
    // A host that does not answer has lost the transaction, which was never committed.
    this.call('abort').catch(() => {});
  }
}

async function perform(run) {
  try {
    return { result: await run() };
  } catch (error) {
    return { error };
  }
}

function arrived({ error, result, arrive }) {
  if (error) return { error };
  try {
    return { result: arrive(result) };
  } catch (thrown) {
    return { error: fromHostError(thrown) };
  }
}
