// What hosted tests of vfs/ and fs/ share: a machine on the fake platform, and short forms.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernel/fs/file_systems.h"
#include "kernel/mem/frames.h"
#include "kernel/sched/sched.h"
#include "kernel/vfs/file.h"
#include "kernel/vfs/inode.h"
#include "kernel/vfs/open_flags.h"
#include "platform/fake/fake.h"

namespace husk::test {

class Machine : public testing::Test {
 protected:
  void SetUp() override {
    platform::fake::reset();
    time::init(platform::fake::kTicksPerSecond, 0, 1'700'000'000'000'000'000, 0);
    mem::init_frames(platform::fake::boot_info());
    sched::init(this_cpu().shared);
  }
  static Ref<sched::Thread> spawn(std::function<void()> body) {
    auto* owned = new std::function<void()>(std::move(body));
    auto thread = sched::Thread::create(
        [](void* argument) {
          auto* function = static_cast<std::function<void()>*>(argument);
          (*function)();
          delete function;
        },
        owned);
    EXPECT_TRUE(thread.ok());
    Ref<sched::Thread> result = thread.release();
    sched::start(result);
    return result;
  }
};

// The errno of a result, 0 if it is good.
template <typename T>
int code(const Result<T>& result) {
  return result.ok() ? 0 : result.error().code();
}

inline Result<size_t> write(vfs::File& file, std::string_view text, const u64* offset = nullptr) {
  vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(text.data(), text.size());
  vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  return file.write(buffer, offset);
}

// What a read of at most `size` bytes gives; "errno N" if it fails.
inline std::string read(vfs::File& file, size_t size, const u64* offset = nullptr) {
  std::string text(size, '?');
  vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(text.data(), size);
  vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  Result<size_t> got = file.read(buffer, offset);
  if (!got.ok()) return "errno " + std::to_string(got.error().code());
  text.resize(*got);
  return text;
}

// epoll_wait(2) into an array.
inline Result<size_t> epoll_wait(vfs::File& epoll, vfs::EpollEvent* events, size_t maximum, u64 deadline_ns) {
  struct Array final : vfs::EpollOutput {
    Result<void> put(const vfs::EpollEvent& event) override {
      *next++ = event;
      return {};
    }
    vfs::EpollEvent* next;
  } array;
  array.next = events;
  return vfs::epoll_wait(epoll, array, maximum, deadline_ns);
}

struct Names final : vfs::DirectoryVisitor {
  struct Name {
    std::string name;
    u8 type;
    u64 next, inode;
  };
  explicit Names(size_t limit = ~size_t{0}) : maximum(limit) {}
  bool visit(const vfs::DirectoryEntry& entry, u64 next_offset) override {
    if (names.size() == maximum) return false;
    names.push_back({std::string(entry.name), entry.type, next_offset, entry.inode});
    return true;
  }
  std::vector<Name> names;
  size_t maximum;
};

}  // namespace husk::test
