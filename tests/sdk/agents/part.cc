// A library that an agent brings along in its package.
extern "C" int part_of_package();
int part_of_package() {
  return 1;
}
