// Inside the sandbox /proc has processes only (subset=pid), so os.cpus() is empty there, and programs that start
// os.cpus().length workers start none. KAI_CPUS, set by the supervisor, is the number of processors to report;
// without it, it is the number that the scheduler lets this process use.
import os from 'node:os';
import { syncBuiltinESMExports } from 'node:module';

export function supplyCpus(given) {
  const asked = Number.parseInt(given ?? '', 10);
  const count = asked > 0 ? asked : (os.availableParallelism?.() ?? 1);
  const known = os.cpus;
  os.cpus = () => {
    const cpus = known();
    if (cpus.length > 0 && !(asked > 0)) return cpus;
    return Array.from({ length: count }, (_, index) => cpus[index] ?? unknownCpu());
  };
  os.availableParallelism = () => count;
  syncBuiltinESMExports();
}

function unknownCpu() {
  return { model: 'unknown', speed: 0, times: { user: 0, nice: 0, sys: 0, idle: 0, irq: 0 } };
}
