// Where the agent keeps its events: in its memory, one key an event. What was added is kept when the promise is.
import type { AgentMemory } from '@kai/agent';

export interface CalendarEvent {
  id: string;
  title: string;
  /** As the caller gave it. */
  start: string;
  /** As the caller gave it. */
  end: string;
}

const PREFIX = 'event/';

export class EventStore {
  #memory: AgentMemory;

  constructor(memory: AgentMemory) {
    this.#memory = memory;
  }

  async all(): Promise<CalendarEvent[]> {
    const events: CalendarEvent[] = [];
    let cursor: string | undefined;
    do {
      const page = await this.#memory.list({ prefix: PREFIX, limit: 500, cursor });
      events.push(...(await this.#memory.getMany(page.keys)).values());
      cursor = page.cursor;
    } while (cursor !== undefined);
    return events;
  }

  /** The manifest's ttl is for what may be forgotten; an event stays until it is cancelled. */
  async add(event: CalendarEvent): Promise<void> {
    await this.#memory.set(PREFIX + event.id, event, { ttl: 0, ifAbsent: true });
  }

  /** Whether there was such an event. */
  async remove(id: string): Promise<boolean> {
    return this.#memory.delete(PREFIX + id);
  }
}
