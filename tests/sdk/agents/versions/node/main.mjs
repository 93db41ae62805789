// An agent of which a test makes several versions. main.py and versions.cc are the same.
import { createRequire } from 'node:module';
import net from 'node:net';
import { AgentError } from '@kai/agent';
import * as part from './part.mjs';
import imported from './imported.cjs';

const required = createRequire(import.meta.url)('./required.cjs');

export default class Versions {
  #calls = ['constructor'];
  #state = null;

  constructor(ctx) {
    this.ctx = ctx;
  }

  async onInit() {
    const { connect } = this.ctx.manifest;
    if (connect !== undefined) await this.#connect(connect);
    await this.#called('onInit');
  }
  onStart() {
    return this.#called('onStart');
  }
  onUpgrade(oldVersion) {
    return this.#called('onUpgrade', ` ${oldVersion}`);
  }
  onShutdown() {
    return this.#called('onShutdown');
  }
  async onHealthCheck() {
    await this.#called('onHealthCheck');
    return { status: this.ctx.manifest.status ?? 'healthy' };
  }
  saveState() {
    return this.#state;
  }
  async restoreState(state) {
    await this.#called('restoreState');
    this.#state = state;
  }
  onError(error) {
    this.#calls.push(`onError ${error.message}`);
  }

  async onMessage({ capability, payload, type }) {
    switch (capability) {
      case 'version':
        return this.ctx.manifest.version;
      case 'calls':
        return this.#calls;
      case 'count': // in modules of every kind; those that are loaded late too
        return Promise.all([
          part.count(),
          imported.count(),
          required.count(),
          import('./late.mjs').then((late) => late.count()),
          required.late(),
        ]);
      case 'where':
        return [import.meta.url, (await import('./late.mjs')).where].map((url) => new URL(url).pathname);
      case 'directory':
        return process.cwd();
      case 'set':
        this.#state = payload;
        return null;
      case 'set-long':
        this.#state = 'x'.repeat(payload);
        return null;
      case 'event':
        this.ctx.log.info(`${type} of ${this.ctx.manifest.version}`);
        return null;
      case 'throw':
        throw new Error(payload);
      case 'hold':
        return new Promise(() => {});
      case 'connect':
        return this.#connect(payload);
      default:
        throw new Error(`unknown capability ${capability}`);
    }
  }

  /** On the connection each byte is a question: what does the context do? */
  #connect(path) {
    return new Promise((resolve) => {
      const socket = net.connect(path, () => resolve(null));
      socket.on('data', async () => {
        const { ctx } = this;
        ctx.log.info(`log of ${ctx.manifest.version}`);
        const asked = [() => ctx.memory.get('k'), () => ctx.send('other', 'ask', 1), () => ctx.emit('done', 1)];
        const codes = [];
        for (const ask of asked) {
          codes.push(await ask().then(() => 'none', (error) => (error instanceof AgentError ? error.code : 'foreign')));
        }
        socket.write(`${codes.join(' ')}\n`);
      });
    });
  }

  async #called(hook, detail = '') {
    this.#calls.push(hook + detail);
    const { throwIn, askIn, hangIn } = this.ctx.manifest;
    if (throwIn === hook) throw new Error(`thrown in ${hook}`);
    if (hangIn === hook) await new Promise(() => {});
    if (askIn === hook) await this.ctx.send('other', 'ask', hook);
  }
}
