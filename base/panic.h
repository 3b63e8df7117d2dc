// Broken invariants end the machine (guest) or the process (hosted tests, tools).
//
// HUSK_ASSERT stays on in every build. husk::panic is defined once per world: by
// kernel/boot (message and backtrace to the log, then power off) and by base/host_panic_hosted.cc.
#pragma once

namespace husk {

[[noreturn]] void panic(const char* file, int line, const char* message);

}  // namespace husk

#define HUSK_PANIC(message) ::husk::panic(__FILE_NAME__, __LINE__, message)
#define HUSK_ASSERT(condition)                                                \
  do {                                                                        \
    if (__builtin_expect(!(condition), 0)) HUSK_PANIC("assert: " #condition); \
  } while (0)
