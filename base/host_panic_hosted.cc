// husk::panic for hosted programs and tests: message to stderr, then abort().
#include <stdio.h>
#include <stdlib.h>

#include "base/panic.h"

namespace husk {

void panic(const char* file, int line, const char* message) {
  fprintf(stderr, "husk: panic at %s:%d: %s\n", file, line, message);
  abort();
}

}  // namespace husk
