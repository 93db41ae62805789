// A library that is no agent.
extern "C" int answer();
int answer() {
  return 42;
}
