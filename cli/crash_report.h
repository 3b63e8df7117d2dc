// Turns a crash record (abi/control_records.h) into text: signal, address, registers, and a backtrace with names.
//
// Symbols come from the ELF files in the image itself and from the kernel.elf inside this program, so nothing needs to be opened
// and the names fit what ran. The record comes from the guest and is not trusted.
#pragma once

#include <span>
#include <string>

#include "cli/image_files.h"

namespace husk::cli {

std::string describe_crash(std::span<const u8> record, const ImageFiles& files, std::span<const u8> kernel_elf);

// "name+0x12", demangled, or "" if no symbol of the file covers the offset.
std::string symbol_at(std::span<const u8> elf_file, u64 offset);

}  // namespace husk::cli
