// A period of time as a request gives it: checked, with the caller's own words kept for the answer.
import { isBefore, isValid, parseISO } from 'date-fns';

export interface Moment {
  text: string;
  date: Date;
}

export interface Period {
  start: Moment;
  end: Moment;
}

export function readPeriod(payload: Record<string, unknown>, startField: string, endField: string): Period {
  const start = readMoment(payload, startField);
  const end = readMoment(payload, endField);
  if (!isBefore(start.date, end.date)) {
    throw new Error(`${endField} (${end.text}) must be after ${startField} (${start.text})`);
  }
  return { start, end };
}

function readMoment(payload: Record<string, unknown>, field: string): Moment {
  const text = payload[field];
  const date = typeof text === 'string' ? parseISO(text) : undefined;
  if (typeof text !== 'string' || date === undefined || !isValid(date)) {
    throw new Error(
      `${field} must be an ISO 8601 date and time, such as 2026-05-04T13:00:00Z; got ${JSON.stringify(text)}`,
    );
  }
  return { text, date };
}
