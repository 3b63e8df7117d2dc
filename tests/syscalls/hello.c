// flags: -static
// The smallest real program: static glibc, stdio.
#include <stdio.h>
int main(void) {
  puts("hello, world");
  return 0;
}
