// DWARF pointer encodings and the two tables; see unwind.h.
#include "image/elf/unwind.h"

#include <map>

namespace husk::image {
namespace {

constexpr u8 kOmit = 0xff, kPcRelative = 0x10, kIndirect = 0x80;

// Reads forward; after a failure every read gives 0 and ok() is false.
class Cursor {
 public:
  Cursor(Bytes bytes, u64 address) : bytes_(bytes), address_(address) {}
  bool ok() const { return ok_; }
  u64 offset() const { return offset_; }
  u64 address() const { return address_ + offset_; }
  bool at_end() const { return !ok_ || offset_ >= bytes_.size(); }
  void skip(u64 count) {
    if (!ok_ || bytes_.size() - offset_ < count) {
      ok_ = false;
    } else {
      offset_ += count;
    }
  }
  template <typename T>
  T get() {
    auto value = ok_ ? read_at<T>(bytes_, offset_) : std::nullopt;
    skip(sizeof(T));
    return ok_ ? *value : T{};
  }
  u64 uleb() { return leb(nullptr); }
  i64 sleb() {
    unsigned bits;
    u64 value = leb(&bits);
    if (ok_ && bits < 64 && (last_ & 0x40)) value |= ~u64{0} << bits;
    return static_cast<i64>(value);
  }
  // A pointer; relative ones are made absolute. Zero stays zero (it means "none").
  u64 pointer(u8 encoding) {
    u64 here = address(), value = 0;
    switch (encoding & 0x0f) {
      case 0x00:
      case 0x04:
      case 0x0c: value = get<u64>(); break;
      case 0x01: value = uleb(); break;
      case 0x02: value = get<u16>(); break;
      case 0x03: value = get<u32>(); break;
      case 0x09: value = static_cast<u64>(sleb()); break;
      case 0x0a: value = static_cast<u64>(i64{get<int16_t>()}); break;
      case 0x0b: value = static_cast<u64>(i64{get<int32_t>()}); break;
      default: ok_ = false;
    }
    u8 base = encoding & 0x70;
    if ((encoding & kIndirect) || (base != 0 && base != kPcRelative)) ok_ = false;
    return value != 0 && base == kPcRelative ? value + here : value;
  }
  std::string_view text() {
    auto start = offset_;
    while (ok_ && get<u8>() != 0) {}
    return ok_ ? as_text(bytes_.subspan(start, offset_ - start - 1)) : std::string_view{};
  }

 private:
  u64 leb(unsigned* bits) {
    u64 value = 0;
    unsigned shift = 0;
    do {
      last_ = get<u8>();
      if (shift < 64) value |= u64{last_ & 0x7fu} << shift;
      shift += 7;
    } while (ok_ && (last_ & 0x80) && shift < 70);
    if (bits) *bits = shift;
    return value;
  }
  Bytes bytes_;
  u64 address_, offset_ = 0;
  u8 last_ = 0;
  bool ok_ = true;
};

// Common information entry: how its FDEs are encoded.
struct Cie {
  u8 pointer_encoding = 0, table_encoding = kOmit;
  bool augmented = false, signal_frame = false, understood = false;
};

Cie parse_cie(Bytes body, u64 address) {
  Cie cie;
  Cursor cursor(body, address);
  cursor.skip(4);
  u8 version = cursor.get<u8>();
  std::string_view augmentation = cursor.text();
  cursor.uleb();
  cursor.sleb();
  if (version == 1) {
    cursor.get<u8>();
  } else {
    cursor.uleb();
  }
  for (char letter : augmentation) {
    switch (letter) {
      case 'z':
        cursor.uleb();
        cie.augmented = true;
        break;
      case 'R': cie.pointer_encoding = cursor.get<u8>(); break;
      case 'L': cie.table_encoding = cursor.get<u8>(); break;
      case 'P': {
        u8 encoding = cursor.get<u8>();
        cursor.pointer(encoding & 0x0f);  // the personality routine: only its size matters
        break;
      }
      case 'S': cie.signal_frame = true; break;
      case 'B': break;
      default: return cie;
    }
  }
  cie.understood = cursor.ok() && (version == 1 || version == 3);
  return cie;
}

std::optional<UnwindEntry> parse_fde(Bytes body, u64 address, const Cie& cie) {
  Cursor cursor(body, address);
  cursor.skip(4);
  UnwindEntry entry = {};
  entry.start = cursor.pointer(cie.pointer_encoding);
  u64 size = cursor.pointer(cie.pointer_encoding & 0x0f);
  entry.signal_frame = cie.signal_frame;
  if (cie.augmented) cursor.uleb();
  if (cie.table_encoding != kOmit) entry.exception_table = cursor.pointer(cie.table_encoding);
  if (!cursor.ok() || !checked_add(entry.start, size, &entry.end)) return std::nullopt;
  return entry;
}

}  // namespace

UnwindTable read_unwind_table(const ElfView& elf) {
  UnwindTable table;
  const Elf64_Shdr* section = elf.section(".eh_frame");
  auto bytes = section ? elf.contents(*section) : std::nullopt;
  if (!bytes) return table;
  std::map<u64, Cie> cies;
  for (u64 offset = 0; offset + 4 <= bytes->size();) {
    u64 length = *read_at<u32>(*bytes, offset), body_at = offset + 4;
    if (length == 0) {  // terminator; linkers may put one between the parts of several objects
      offset += 4;
      continue;
    }
    if (length == 0xffffffff) {
      length = read_at<u64>(*bytes, offset + 4).value_or(0);
      body_at = offset + 12;
    }
    auto body = slice(*bytes, body_at, length);
    if (!body || length < 4) return table.complete = false, table;
    u32 id = *read_at<u32>(*body, 0);
    u64 address = section->sh_addr + body_at;
    if (id == 0) {
      cies[body_at] = parse_cie(*body, address);
    } else {
      // The CIE's length field lies `id` bytes before this field; its body 4 (or 12) behind that.
      auto cie = cies.find(body_at - id + 4);
      if (cie == cies.end()) cie = cies.find(body_at - id + 12);
      std::optional<UnwindEntry> entry;
      if (cie != cies.end() && cie->second.understood) entry = parse_fde(*body, address, cie->second);
      if (!entry) {
        table.complete = false;
      } else if (entry->end > entry->start) {
        table.entries.push_back(*entry);
      }
    }
    offset = body_at + length;
  }
  return table;
}

bool read_landing_pads(const ElfView& elf, const UnwindEntry& entry, std::vector<u64>& pads) {
  if (entry.exception_table == 0) return true;
  // The table's size is known only from inside: take what the segment has.
  const Elf64_Phdr* holder = nullptr;
  for (const auto& segment : elf.segments()) {
    if (segment.p_type == PT_LOAD && entry.exception_table - segment.p_vaddr < segment.p_filesz) holder = &segment;
  }
  if (!holder) return false;
  Cursor cursor(elf.contents(*holder).subspan(entry.exception_table - holder->p_vaddr), entry.exception_table);
  u8 start_encoding = cursor.get<u8>();
  u64 base = start_encoding == kOmit ? entry.start : cursor.pointer(start_encoding);
  if (cursor.get<u8>() != kOmit) cursor.uleb();  // type table: not needed
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
