// A driver made of the fuzzer's bytes: registers and guest memory are written in any order, and the device is made to work in between.
//
// Input: commands of {u8 what, u8 value size hint, u32 place, u32 value}. After each the console processes; no buffer may leave guest memory
// (the sanitizers watch) and no command may hang.
#include <errno.h>
#include <string.h>

#include "vmm/devices/console.h"
#include "vmm/devices/control_channel.h"
#include "vmm/devices/mmio_transport.h"

namespace {

using namespace husk;
using namespace husk::vmm;

constexpr u64 kMemory = 64 * kKiB;

struct Endless : ByteSource {
  ssize_t read(std::span<const iovec> buffers) override {
    ssize_t total = 0;
    for (const iovec& part : buffers) {
      memset(part.iov_base, 'x', part.iov_len);
      total += static_cast<ssize_t>(part.iov_len);
    }
    return total;
  }
};

struct Command {
  u8 what, size;
  u16 place;
  u32 value;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  GuestMemory memory;
  memory.add_ram(0, kMemory);
  Endless source;
  ControlReceiver sink([](abi::RecordType, std::span<const u8>) {});
  ConsoleDevice console("console", &source, &sink, {});
  MmioTransport transport(console, memory, [] {});
  for (size_t at = 0; size - at >= sizeof(Command); at += sizeof(Command)) {
    Command command;
    memcpy(&command, data + at, sizeof(command));
    switch (command.what % 4) {
      case 0: transport.store(command.place % 0x110, command.size == 0 ? 4 : command.size, command.value); break;
      case 1: (void)transport.load(command.place % 0x200, command.size == 0 ? 4 : command.size % 16); break;
      case 2: {
        auto bytes = memory.writable({command.place}, 4);
        if (!bytes.empty()) memcpy(bytes.data(), &command.value, 4);
        break;
      }
      default: console.process();
    }
  }
  console.process();
  return 0;
}
