// Turns a crash record (abi/control_records.h) into text: signal, address, registers, and a backtrace with names.
//
// Names and unwind tables come from the ELF files in the image itself and from the kernel.elf inside this program, so nothing needs to be opened
// and the names fit what ran. The record comes from the guest and is not trusted.
#pragma once

#include <span>
#include <string>

#include "cli/backtrace.h"

namespace husk::cli {

// `read_file` gives files of the image.
std::string describe_crash(std::span<const u8> record, const ReadFile& read_file, std::span<const u8> kernel_elf);

}  // namespace husk::cli
