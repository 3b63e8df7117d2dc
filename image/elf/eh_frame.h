// The two kinds of records in .eh_frame: a CIE says how its FDEs are encoded, an FDE describes one function.
// Pure. For unwind.cc (bounds of functions) and call_frames.cc (from a function to its caller). Specification: LSB 5.0 core §10.6.
#pragma once

#include "image/elf/dwarf_cursor.h"

namespace husk::image {

// `end` and `start` of its body count from where the section's bytes do.
struct EhRecord {
  Bytes body;  // behind the length; empty: a terminator
  u64 start, end;
};
// Nothing if it does not lie inside.
std::optional<EhRecord> eh_record_at(Bytes section, u64 offset);

struct Cie {
  u8 pointer_encoding = 0, table_encoding = kPointerOmitted;
  bool augmented = false;
  bool signal_frame = false;  // the 'S' augmentation: code that a signal handler returns to
  bool understood = false;
  u64 code_factor = 0, return_register = 0;
  i64 data_factor = 0;
  Bytes instructions;
};
struct Fde {
  u64 start = 0, end = 0;
  u64 exception_table = 0;  // address of the LSDA, 0 if there is none
  Bytes instructions;
};

// `body` is what follows the record's length, `address` where it is in memory.
Cie parse_cie(Bytes body, u64 address);
std::optional<Fde> parse_fde(Bytes body, u64 address, const Cie& cie);

}  // namespace husk::image
