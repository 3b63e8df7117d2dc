// See unwind.h.
#include "image/elf/unwind.h"

#include <map>

#include "image/elf/eh_frame.h"

namespace husk::image {

UnwindTable read_unwind_table(const ElfView& elf) {
  UnwindTable table;
  const Elf64_Shdr* section = elf.section(".eh_frame");
  auto bytes = section ? elf.contents(*section) : std::nullopt;
  if (!bytes) return table;
  std::map<u64, Cie> cies;
  for (u64 offset = 0; offset + 4 <= bytes->size();) {
    auto record = eh_record_at(*bytes, offset);
    if (record && record->end == offset + 4) {  // terminator; linkers may put one between the parts of several objects
      offset = record->end;
      continue;
    }
    if (!record || record->body.size() < 4) return table.complete = false, table;
    u32 id = *read_at<u32>(record->body, 0);
    u64 body_at = record->start, address = section->sh_addr + body_at;
    if (id == 0) {
      cies[body_at] = parse_cie(record->body, address);
    } else {
      // The CIE's length field lies `id` bytes before this field; its body 4 (or 12) behind that.
      auto cie = cies.find(body_at - id + 4);
      if (cie == cies.end()) cie = cies.find(body_at - id + 12);
      std::optional<Fde> fde;
      if (cie != cies.end() && cie->second.understood) fde = parse_fde(record->body, address, cie->second);
      if (!fde) {
        table.complete = false;
      } else if (fde->end > fde->start) {
        table.entries.push_back({fde->start, fde->end, fde->exception_table, cie->second.signal_frame});
      }
    }
    offset = record->end;
  }
  return table;
}

bool read_landing_pads(const ElfView& elf, const UnwindEntry& entry, std::vector<u64>& pads) {
  if (entry.exception_table == 0) return true;
  // The table's size is known only from inside: take what the segment has.
  auto bytes = elf.from_address(entry.exception_table);
  if (!bytes) return false;
  DwarfCursor cursor(*bytes, entry.exception_table);
  u8 start_encoding = cursor.get<u8>();
  u64 base = start_encoding == kPointerOmitted ? entry.start : cursor.pointer(start_encoding);
  if (cursor.get<u8>() != kPointerOmitted) cursor.uleb();  // type table: not needed
  u8 encoding = cursor.get<u8>();
  u64 size = cursor.uleb(), end = cursor.offset() + size;
  if (size > kMiB) return false;
  while (cursor.ok() && cursor.offset() < end) {
    cursor.pointer(encoding & 0x0f);
    cursor.pointer(encoding & 0x0f);
    u64 pad = cursor.pointer(encoding & 0x0f);
    cursor.uleb();
    if (pad != 0) pads.push_back(base + pad);
  }
  return cursor.ok();
}

}  // namespace husk::image
