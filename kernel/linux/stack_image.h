// The first bytes of a program's stack: argc, argv, envp, auxiliary vector and the strings. Pure: built in kernel memory.
//
// System V ABI, AMD64 supplement §3.4.1; order of the parts as Linux has it, because ps, glibc and libuv's setproctitle rely on
// the argument and environment strings being contiguous.
#pragma once
#undef linux

#include <span>

#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"

namespace husk::linux {

struct AuxiliaryEntry {
  u64 type, value;
};

struct StackRequest {
  u64 top = 0;  // end of the stack's mapping
  u64 gap = 0;  // random bytes between strings and vectors, below 8 KiB
  std::span<const String> arguments, environment;
  std::string_view executable;                // AT_EXECFN
  std::span<const AuxiliaryEntry> auxiliary;  // without AT_RANDOM, AT_EXECFN, AT_PLATFORM and AT_NULL: added here
  u8 random[16] = {};                         // AT_RANDOM
};

struct StackImage {
  u64 stack_pointer = 0;  // where `bytes` go; 16-byte aligned
  Vec<u8> bytes;
  u64 arguments_start = 0, arguments_end = 0, environment_start = 0, environment_end = 0;
  Vec<u8> auxiliary_vector;  // as it is in `bytes`
};

Result<StackImage> build_stack(const StackRequest& request);

}  // namespace husk::linux
