// /dev, and the character devices that programs expect: null(4), random(4), full(4), tty(4).
#include "kernel/fs/devices.h"
#include "kernel/fs/file_systems.h"
#include "kernel/fs/tmpfs.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"

namespace husk::fs {

namespace {

enum class Device : u8 { null, zero, full, random };
constexpr u64 kNull = 0x103, kZero = 0x105, kFull = 0x107, kRandom = 0x108, kUrandom = 0x109, kTty = 0x500, kConsole = 0x501;

// What /dev/tty and /dev/console are; given once by make_devfs() and kept.
constinit vfs::File* g_terminal = nullptr;

// A private mapping of /dev/zero is anonymous memory; a shared one shares these pages.
class MemoryDevice final : public vfs::File {
 public:
  explicit MemoryDevice(Device device) : device_(device) {}

  Result<size_t> read(vfs::IoBuffer& buffer, const u64*) override {
    switch (device_) {
      case Device::null: return size_t{0};
      case Device::random: return read_random(buffer);
      default: return buffer.put_zeros(buffer.remaining());
    }
  }
  Result<size_t> write(vfs::IoBuffer& buffer, const u64*) override {
    if (device_ == Device::full) return Error(ENOSPC);
    size_t size = buffer.remaining();
    if (device_ == Device::random) return write_random(buffer);
    buffer.advance(size);
    return size;
  }
  Result<u64> seek(i64, int) override { return u64{0}; }
  Result<Ref<File>> reopen(u32) override { return Ref<File>(TRY(make_ref<MemoryDevice>(device_))); }
  Result<void> sync(bool) override { return Error(EINVAL); }
  Result<Ref<mem::MemoryObject>> memory_object() override {
    if (device_ != Device::zero) return Error(ENODEV);
    Ref<Budget> budget = TRY(make_ref<Budget>(mem::memory_statistics().total / kPageSize));
    Ref<PagedData> pages = TRY(make_ref<PagedData>(std::move(budget), 0, 0));
    TRY(pages->truncate(u64{1} << 47));
    String name = TRY(String::from("/dev/zero"));
    pages->set_name(std::move(name));
    return Ref<mem::MemoryObject>(std::move(pages));
  }

 private:
  static constexpr size_t kChunk = 256;
  static Result<size_t> read_random(vfs::IoBuffer& buffer) {
    u8 bytes[kChunk];
    size_t moved = 0;
    while (buffer.remaining() > 0) {
      size_t wanted = buffer.remaining() < kChunk ? buffer.remaining() : kChunk;
      random_bytes(bytes, wanted);
      Result<size_t> got = buffer.put(bytes, wanted);
      if (!got.ok() && moved == 0) return got.error();
      if (!got.ok()) break;
      moved += *got;
      if (*got < wanted) break;
    }
    return moved;
  }
  static Result<size_t> write_random(vfs::IoBuffer& buffer) {
    u8 bytes[kChunk];
    size_t moved = 0;
    while (buffer.remaining() > 0) {
      size_t got = TRY(buffer.take(bytes, kChunk));
      add_entropy({bytes, got});
      moved += got;
    }
    return moved;
  }
  Device device_;
};

Result<Ref<vfs::File>> make_memory_device(Device device) { return Ref<vfs::File>(TRY(make_ref<MemoryDevice>(device))); }

}  // namespace

Result<Ref<vfs::File>> open_character_device(u64 device, u32 flags) {
  switch (device) {
    case kNull: return make_memory_device(Device::null);
    case kZero: return make_memory_device(Device::zero);
    case kFull: return make_memory_device(Device::full);
    case kRandom:
    case kUrandom: return make_memory_device(Device::random);
    case kTty:
    case kConsole:
      if (g_terminal != nullptr) return g_terminal->reopen(flags);
      [[fallthrough]];
    default: return Error(ENXIO);
  }
}

Result<Ref<vfs::Inode>> make_devfs(Ref<vfs::File> standard_input, Ref<vfs::File> standard_output, Ref<vfs::File> standard_error) {
  for (Ref<vfs::File>* file : {&standard_input, &standard_output, &standard_error}) {
    if (g_terminal == nullptr && *file && (*file)->kind == vfs::File::Kind::terminal) g_terminal = file->leak();
  }
  Ref<DirectoryNode> root = TRY(make_tmpfs_root(0, 0755));
  struct Name {
    const char* name;
    u64 device;
    u32 mode;
  };
  constexpr Name kDevices[] = {{"null", kNull, 0666},       {"zero", kZero, 0666}, {"full", kFull, 0666},      {"random", kRandom, 0666},
                               {"urandom", kUrandom, 0666}, {"tty", kTty, 0666},   {"console", kConsole, 0600}};
  for (const Name& each : kDevices) (void)TRY(root->create(each.name, vfs::kCharacterDevice | each.mode, each.device));
  struct Link {
    const char *name, *target;
  };
  constexpr Link kLinks[] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}};
  for (const Link& each : kLinks) (void)TRY(root->create_symlink(each.name, each.target));
  (void)TRY(root->create("shm", vfs::kDirectoryType | 01777, 0));
  (void)TRY(root->create("pts", vfs::kDirectoryType | 0755, 0));
  return Ref<vfs::Inode>(std::move(root));
}

}  // namespace husk::fs
