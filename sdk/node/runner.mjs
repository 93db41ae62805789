// Runs one agent: node runner.mjs ENTRY, with the runner protocol (docs/runner-protocol.md) on descriptor 3.
// An uncaught exception or unhandled rejection is Node's own affair: it is printed and ends the process with status 1.
import { readFileSync } from 'node:fs';
import { Channel } from './lib/channel.mjs';
import { Session } from './lib/session.mjs';
import { supplyCpus } from './lib/cpus.mjs';

const { version } = JSON.parse(readFileSync(new URL('./package.json', import.meta.url), 'utf8'));

function fail(message) {
  process.stderr.write(`kai runner: ${message}\n`);
  process.exit(2);
}

const [entry] = process.argv.slice(2);
if (entry === undefined) fail('usage: node runner.mjs ENTRY');

const fd = Number(process.env.KAI_RUNNER_FD ?? 3);
// Programs that the agent starts have no runner channel.
delete process.env.KAI_RUNNER_FD;

supplyCpus(process.env.KAI_CPUS);
process.setSourceMapsEnabled?.(true); // stacks name lines of main.ts, not of what it was compiled to

const session = new Session(entry);
let channel;
try {
  channel = new Channel(fd, session);
} catch (error) {
  fail(`descriptor ${fd} is not a runner channel (${error.message}); agents are started by kaictl start`);
}
session.attach(channel);
channel.notify('hello', { sdk: `node/${version}`, protocol: 1 });
