// Where the agent keeps its events. The agent knows the interface only, so that they can move to ctx.memory.

export interface CalendarEvent {
  id: string;
  title: string;
  /** As the caller gave it. */
  start: string;
  /** As the caller gave it. */
  end: string;
}

export interface EventStore {
  all(): Promise<CalendarEvent[]>;
  add(event: CalendarEvent): Promise<void>;
  /** Whether there was such an event. */
  remove(id: string): Promise<boolean>;
}

/** Lives as long as the process. */
export class ProcessStore implements EventStore {
  #events = new Map<string, CalendarEvent>();

  async all(): Promise<CalendarEvent[]> {
    return [...this.#events.values()];
  }

  async add(event: CalendarEvent): Promise<void> {
    this.#events.set(event.id, event);
  }

  async remove(id: string): Promise<boolean> {
    return this.#events.delete(id);
  }
}
