#include "kernel/drivers/serial.h"

#include "kernel/drivers/ports.h"

namespace husk::drivers {

namespace {
constexpr u16 kData = 0x3f8, kLineStatus = 0x3fd;
constexpr u8 kDataReady = 0x01, kTransmitterEmpty = 0x20;
constexpr int kSpinsMax = 1'000'000;  // a line that does not move loses bytes, never the machine
}  // namespace

void serial_write(std::span<const u8> bytes) {
  for (u8 byte : bytes) {
    for (int i = 0; i < kSpinsMax && (in_u8(kLineStatus) & kTransmitterEmpty) == 0; ++i) {}
    out_u8(kData, byte);
  }
}

bool serial_has_input() { return (in_u8(kLineStatus) & kDataReady) != 0; }
u8 serial_read() { return in_u8(kData); }

}  // namespace husk::drivers
