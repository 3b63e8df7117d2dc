// Arguments, environment, auxiliary vector and exit status.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
int main(int argc, char** argv) {
  printf("%d\n", argc);
  for (int i = 1; i < argc; ++i) printf("[%s]\n", argv[i]);
  printf("%s\n", getenv("HUSK_TEST") ? getenv("HUSK_TEST") : "(unset)");
  printf("%lu %d %d %d\n", getauxval(AT_PAGESZ), getauxval(AT_RANDOM) != 0, getauxval(AT_PHDR) != 0, getauxval(AT_SYSINFO_EHDR) != 0);
  printf("%d %ld\n", getauxval(AT_SECURE) == 0, sysconf(_SC_CLK_TCK));
  char path[256];
  long length = readlink("/proc/self/exe", path, sizeof path - 1);
  printf("%d\n", length > 0 && strncmp(path, "/", 1) == 0);
  return 42;
}
