// See eh_frame.h.
#include "image/elf/eh_frame.h"

namespace husk::image {

std::optional<EhRecord> eh_record_at(Bytes section, u64 offset) {
  auto short_length = read_at<u32>(section, offset);
  if (!short_length) return std::nullopt;
  bool is_long = *short_length == 0xffffffff;
  u64 length = is_long ? read_at<u64>(section, offset + 4).value_or(0) : *short_length, start = offset + (is_long ? 12 : 4);
  auto body = slice(section, start, length);
  if (!body) return std::nullopt;
  return EhRecord{*body, start, start + length};
}

Cie parse_cie(Bytes body, u64 address) {
  Cie cie;
  DwarfCursor cursor(body, address);
  cursor.skip(4);
  u8 version = cursor.get<u8>();
  std::string_view augmentation = cursor.text();
  cie.code_factor = cursor.uleb();
  cie.data_factor = cursor.sleb();
  cie.return_register = version == 1 ? cursor.get<u8>() : cursor.uleb();
  u64 augmentation_end = 0;
  for (char letter : augmentation) {
    switch (letter) {
      case 'z':
        augmentation_end = cursor.uleb();
        augmentation_end += cursor.offset();
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
  if (augmentation_end > cursor.offset()) cursor.skip(augmentation_end - cursor.offset());
  cie.instructions = cursor.rest();
  return cie;
}

std::optional<Fde> parse_fde(Bytes body, u64 address, const Cie& cie) {
  DwarfCursor cursor(body, address);
  cursor.skip(4);
  Fde fde;
  fde.start = cursor.pointer(cie.pointer_encoding);
  u64 size = cursor.pointer(cie.pointer_encoding & 0x0f);
  u64 augmentation_end = cie.augmented ? cursor.uleb() : 0;
  augmentation_end += cursor.offset();
  if (cie.table_encoding != kPointerOmitted) fde.exception_table = cursor.pointer(cie.table_encoding);
  if (!cursor.ok() || !checked_add(fde.start, size, &fde.end)) return std::nullopt;
  if (augmentation_end > cursor.offset()) cursor.skip(augmentation_end - cursor.offset());
  fde.instructions = cursor.rest();
  return fde;
}

}  // namespace husk::image
