// O_* of open(2) on x86-64, with husk's names: vfs/ and fs/ share them.
#pragma once

#include "base/types.h"

namespace husk::vfs {

enum OpenFlags : u32 {
  kOpenAccess = 3,
  kOpenWriteOnly = 1,
  kOpenReadWrite = 2,
  kOpenCreate = 0100,
  kOpenExclusive = 0200,
  kOpenNoTerminal = 0400,
  kOpenTruncate = 01000,
  kOpenAppend = 02000,
  kOpenNonBlocking = 04000,
  kOpenDirect = 040000,
  kOpenDirectory = 0200000,
  kOpenNoFollow = 0400000,
  kOpenCloseOnExec = 02000000,
  kOpenPath = 010000000,
  kOpenTemporary = 020000000 | kOpenDirectory,
};

}  // namespace husk::vfs
