// The HealthStatus of an agent that does not make its own.

const MAX_TYPES = 16; // of errors that are told apart, as many as the supervisor takes; the one that was quiet longest goes first
const MAX_TEXT = 1024; // characters of an error's type and message

const started = performance.now(); // of the process: a soft upgrade keeps it

export class Health {
  #lastActivity = new Date();
  #errors = new Map(); // type → ErrorSummary, the latest last
  #cpu = { at: performance.now(), used: process.cpuUsage() };

  active() {
    this.#lastActivity = new Date();
  }

  failed(error) {
    const type = String(error.name || 'Error').slice(0, MAX_TEXT);
    const count = (this.#errors.get(type)?.count ?? 0) + 1;
    this.#errors.delete(type);
    if (this.#errors.size >= MAX_TYPES) this.#errors.delete(this.#errors.keys().next().value);
    const message = String(error.message).slice(0, MAX_TEXT);
    this.#errors.set(type, { type, count, lastOccurrence: new Date().toISOString(), message });
  }

  status() {
    return {
      status: 'healthy',
      uptime: Math.round(performance.now() - started),
      memoryUsage: round(process.memoryUsage.rss() / 2 ** 20),
      cpuUsage: this.#cpuUsage(),
      lastActivity: this.#lastActivity.toISOString(),
      errors: [...this.#errors.values()],
    };
  }

  /** Percent of one core since the last question. */
  #cpuUsage() {
    const now = performance.now();
    const { user, system } = process.cpuUsage(this.#cpu.used);
    const elapsed = Math.max(now - this.#cpu.at, 1);
    this.#cpu = { at: now, used: process.cpuUsage() };
    return round(((user + system) / 1000 / elapsed) * 100);
  }
}

function round(value) {
  return Math.round(value * 10) / 10;
}
