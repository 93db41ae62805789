// Hooks of module.register, for packages that are loaded again in one process: an ES module's place in Node's module
// map is its URL and nothing ever leaves that map, so each generation of a package has URLs of its own, by ?kai=N. The
// entry's URL also says which package is meant (kaiRoot). Runs in Node's thread for such hooks.

const newest = new Map(); // URL of a package's root → its newest generation

export async function resolve(specifier, context, nextResolve) {
  const entry = parse(specifier);
  if (entry?.searchParams.has('kaiRoot')) {
    newest.set(entry.searchParams.get('kaiRoot'), entry.searchParams.get('kai'));
    return nextResolve(specifier, context);
  }
  const resolved = await nextResolve(specifier, context);
  const root = [...newest.keys()].find((one) => resolved.url.startsWith(one));
  if (root === undefined) return resolved;
  const url = new URL(resolved.url);
  // A parent that says no generation is a CommonJS module: of those only the newest are left in require.cache.
  url.searchParams.set('kai', parse(context.parentURL)?.searchParams.get('kai') ?? newest.get(root));
  return { ...resolved, url: url.href };
}

function parse(url) {
  return url?.startsWith('file:') ? new URL(url) : undefined;
}
