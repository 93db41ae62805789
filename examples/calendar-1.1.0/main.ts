// A calendar: schedules events that do not overlap, says what is free, cancels, lists. New in 1.1.0 is listEvents, which
// also tells what was cancelled lately; that is in the process alone, and goes from version to version by saveState.
import { randomUUID } from 'node:crypto';
import { areIntervalsOverlapping, compareAsc, isAfter, isBefore, parseISO } from 'date-fns';
import type { AgentContext, AgentLifecycleHooks, KLPMessage } from '@kai/agent';
import { readPeriod, type Moment, type Period } from './period';
import { EventStore, type CalendarEvent } from './store';

type Payload = Record<string, unknown>;

interface Availability {
  busy: { id: string; start: string; end: string }[];
  free: { start: string; end: string }[];
}

interface State {
  cancelled: CalendarEvent[];
}

const MAX_CANCELLED = 10;

export default class CalendarAgent implements AgentLifecycleHooks {
  #ctx: AgentContext;
  #events: EventStore;
  /** Messages are served at once, but whoever looks for a conflict and then adds must not be overtaken in between. */
  #lastChange: Promise<unknown> = Promise.resolve();
  /** The last ones first. */
  #cancelled: CalendarEvent[] = [];

  constructor(ctx: AgentContext) {
    this.#ctx = ctx;
    this.#events = new EventStore(ctx.memory);
  }

  async onInit(): Promise<void> {
    this.#ctx.log.info('calendar opens', { events: (await this.#events.all()).length });
  }

  async onStart(): Promise<void> {}

  async onUpgrade(oldVersion: string): Promise<void> {
    this.#ctx.log.info('calendar is upgraded', { from: oldVersion, events: (await this.#events.all()).length });
  }

  saveState(): State {
    return { cancelled: this.#cancelled };
  }

  /** `state` is null where the version before had no saveState. */
  restoreState(state: State | null): void {
    this.#cancelled = state?.cancelled ?? [];
  }

  async onMessage(msg: KLPMessage): Promise<unknown> {
    const payload = readPayload(msg);
    switch (msg.capability) {
      case 'scheduleEvent':
        return this.#exclusively(() => this.#schedule(payload));
      case 'cancelEvent':
        return this.#exclusively(() => this.#cancel(payload));
      case 'queryAvailability':
        return this.#availability(payload);
      case 'listEvents':
        return { events: (await this.#events.all()).sort(byStart), cancelled: this.#cancelled };
      default:
        throw new Error(`unknown capability ${msg.capability}`);
    }
  }

  async onShutdown(): Promise<void> {
    this.#ctx.log.info('calendar closes', { events: (await this.#events.all()).length });
  }

  async onError(err: Error): Promise<void> {
    this.#ctx.log.warn(`request failed: ${err.message}`);
  }

  async #schedule(payload: Payload): Promise<CalendarEvent> {
    const title = readText(payload, 'title');
    const period = readPeriod(payload, 'start', 'end');
    const other = (await this.#events.all()).find((event) => overlaps(event, period));
    if (other !== undefined) {
      throw new Error(`conflict with "${other.title}" (${other.id}), ${other.start} to ${other.end}`);
    }
    const event = { id: randomUUID(), title, start: period.start.text, end: period.end.text };
    await this.#events.add(event);
    return event;
  }

  async #cancel(payload: Payload): Promise<{ cancelled: true }> {
    const id = readText(payload, 'id');
    const event = (await this.#events.all()).find((one) => one.id === id);
    if (event === undefined) throw new Error(`no event with id ${JSON.stringify(id)}`);
    await this.#events.remove(id);
    this.#cancelled = [event, ...this.#cancelled].slice(0, MAX_CANCELLED);
    return { cancelled: true };
  }

  async #availability(payload: Payload): Promise<Availability> {
    const asked = readPeriod(payload, 'from', 'to');
    const events = (await this.#events.all()).filter((event) => overlaps(event, asked)).sort(byStart);
    return { busy: events.map(({ id, start, end }) => ({ id, start, end })), free: gaps(events, asked) };
  }

  #exclusively<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#lastChange.then(change);
    this.#lastChange = result.catch(() => undefined);
    return result;
  }
}

/** What is left of `asked` between events, which are in order and do not overlap each other. */
function gaps(events: CalendarEvent[], asked: Period): Availability['free'] {
  const free: Availability['free'] = [];
  let from: Moment = asked.start;
  for (const event of events) {
    if (isBefore(from.date, parseISO(event.start))) free.push({ start: from.text, end: event.start });
    from = { text: event.end, date: parseISO(event.end) };
  }
  if (isAfter(asked.end.date, from.date)) free.push({ start: from.text, end: asked.end.text });
  return free;
}

function byStart(a: CalendarEvent, b: CalendarEvent): number {
  return compareAsc(parseISO(a.start), parseISO(b.start));
}

/** An event that ends when another one starts does not overlap it. */
function overlaps(event: CalendarEvent, period: Period): boolean {
  return areIntervalsOverlapping(
    { start: parseISO(event.start), end: parseISO(event.end) },
    { start: period.start.date, end: period.end.date },
  );
}

function readPayload(msg: KLPMessage): Payload {
  const { payload } = msg;
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) {
    throw new Error(`${msg.capability} takes a JSON object`);
  }
  return payload;
}

function readText(payload: Payload, field: string): string {
  const text = payload[field];
  if (typeof text !== 'string' || text.trim() === '') {
    throw new Error(`${field} must be a text that is not empty; got ${JSON.stringify(text)}`);
  }
  return text;
}
