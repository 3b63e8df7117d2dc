// An image in memory from the nub's and a micro-guest's ELF files: what the image builder does in production, cut to the tests' needs; and QEMU that runs it.
#pragma once

#include <string>
#include <vector>

#include "abi/image_format.h"

namespace husk::test {

// The whole image file. Throws std::runtime_error.
std::vector<u8> make_micro_image(const std::string& nub_path, const std::string& guest_path, const std::vector<u8>& config, u32 image_flags);

bool has_qemu();
// Runs it in QEMU without KVM (`machine`: microvm or q35) until it switches itself off, at most so long. What it said on the serial port.
std::string run_in_qemu(const std::string& machine, const std::vector<u8>& image, int seconds = 20);

}  // namespace husk::test
