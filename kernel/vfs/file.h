// File: an open file description. It knows no process and no descriptor number; kernel/linux adds those.
//
// One class for everything that a descriptor can name: regular files, directories, pipes, sockets, epoll, eventfd, terminals.
// A method that makes no sense for a kind keeps the default, which gives the errno that Linux gives.
// Blocking: read and write block (sched::block, interruptible → EINTR) unless nonblocking() → EAGAIN.
#pragma once

#include "base/ref.h"
#include "base/result.h"
#include "kernel/mem/address_space.h"
#include "kernel/sched/sched.h"
#include "kernel/vfs/inode.h"
#include "kernel/vfs/io.h"

namespace husk::vfs {

// poll(2) events, Linux values.
enum Events : u32 {
  kIn = 0x001,
  kPri = 0x002,
  kOut = 0x004,
  kErr = 0x008,
  kHup = 0x010,
  kInvalid = 0x020,
  kInNormal = 0x040,  // synonyms, which files need not give: with_synonyms()
  kOutNormal = 0x100,
  kReadHup = 0x2000,
};
constexpr u32 with_synonyms(u32 events) { return events | ((events & kIn) != 0 ? u32{kInNormal} : 0) | ((events & kOut) != 0 ? u32{kOutNormal} : 0); }

struct DirectoryEntry {
  u64 inode;
  u8 type;  // DT_*
  std::string_view name;
};
class DirectoryVisitor {
 public:
  virtual bool visit(const DirectoryEntry& entry, u64 next_offset) = 0;  // false: buffer full, entry not taken

 protected:
  ~DirectoryVisitor() = default;
};

// Somebody who must know that a file is closed for good before it goes: epoll's items.
struct CloseTag;
class CloseWatcher : public ListNode<CloseTag> {
 public:
  virtual void file_closed() = 0;  // removes itself

 protected:
  ~CloseWatcher() = default;
};

class File : public RefCounted<File> {
 public:
  virtual ~File() = default;
  // The last reference ends the watchers first, while the file is still whole.
  void unref() const {
    if (ref_count() == 1) const_cast<File*>(this)->tell_watchers();
    RefCounted<File>::unref();
  }

  // At the file's own position if `offset` is null, else at *offset (pread, pwrite). Give the bytes moved.
  virtual Result<size_t> read(IoBuffer& buffer, const u64* offset);
  virtual Result<size_t> write(IoBuffer& buffer, const u64* offset);
  virtual Result<u64> seek(i64 offset, int whence);
  virtual Result<void> read_directory(DirectoryVisitor& visitor);
  virtual Result<void> truncate(u64 size);
  virtual Result<void> allocate(int mode, u64 offset, u64 size);  // fallocate(2)
  virtual Result<void> sync(bool data_only);
  // What mmap(2) maps.
  virtual Result<Ref<mem::MemoryObject>> memory_object();
  virtual Result<i64> ioctl(u32 request, u64 argument);
  static constexpr u32 kFionread = 0x541b;  // the request that asks how many bytes wait
  // Readiness now, and where to hear of changes (null: always ready).
  virtual u32 poll_events();
  virtual sched::WaitQueue* wait_queue();
  virtual Result<Stat> stat();
  virtual Result<FileSystemStat> file_system_stat();
  // open(2) of /proc/self/fd/N: this file's object with a new position. ENXIO where Linux has it (sockets, epoll, ...).
  virtual Result<Ref<File>> reopen(u32 open_flags);
  // Text for /proc/self/fd/N: a path, or "pipe:[1]", "anon_inode:[eventfd]".
  virtual Result<String> describe();

  // What the file is, without RTTI: for linux/ and net/ to find their own kind again (epoll, socket, eventfd, ...).
  enum class Kind : u8 { other, inode, pipe, socket, epoll, eventfd, timerfd, signalfd, terminal, memfd, inotify };
  Kind kind = Kind::other;

  Path path;      // where it was opened: inode files and directories; else empty
  u32 flags = 0;  // O_* status flags (O_APPEND, O_NONBLOCK, access mode), changed by F_SETFL
  u64 position = 0;
  bool readable() const { return (flags & 3) != 1; }
  bool writable() const { return (flags & 3) != 0; }
  bool nonblocking() const { return (flags & 04000) != 0; }
  List<CloseWatcher, CloseTag> close_watchers;

 private:
  void tell_watchers();
};

Stat anonymous_stat(u32 mode);  // of a file without an inode: a fresh inode number, the times of now
// Makes a blocking call in terms of a condition: gives EAGAIN, EINTR or, when something has happened, nothing.
Result<void> wait_for_change(const File& file, sched::WaitQueue& queue);

// --- makers of files without a path --------------------------------------------------------------------------------
struct FilePair {
  Ref<File> first, second;
};
Result<FilePair> make_pipe(u32 flags);  // first reads, second writes; pipe(7)
Result<Ref<File>> make_eventfd(u32 initial, u32 flags);
Result<Ref<File>> make_timerfd(int clock, u32 flags);
Result<Ref<File>> make_memfd(std::string_view name, u32 flags);  // MFD_*; lives in kernel/fs
Result<u32> memfd_seals(File& file);                             // F_GET_SEALS; EINVAL if it is no memfd
Result<void> memfd_add_seals(File& file, u32 seals);
Result<Ref<File>> make_epoll(u32 flags);
// A named pipe's end, as open(2) of a FIFO does it; `pipe` is the inode's. Blocks for the other end.
class Pipe;
Result<Ref<Pipe>> make_fifo();
Result<Ref<File>> open_fifo(Ref<Pipe> pipe, u32 flags);
Result<i64> pipe_capacity(File& pipe, i64 new_size_or_minus_1);
Result<i64> pipe_splice(File& from, const u64* from_offset, File& to, const u64* to_offset, size_t size);  // sendfile, splice, copy_file_range

struct TimerSpec {
  u64 value_ns, interval_ns;
};
Result<TimerSpec> timerfd_set(File& file, const TimerSpec& spec, bool absolute);  // gives the old one
Result<TimerSpec> timerfd_get(File& file);

struct EpollEvent {
  u32 events;
  u64 data;
};
Result<void> epoll_add(File& epoll, int descriptor, Ref<File> target, const EpollEvent& event);
Result<void> epoll_modify(File& epoll, int descriptor, File& target, const EpollEvent& event);
Result<void> epoll_remove(File& epoll, int descriptor, File& target);
// Takes events one by one; with an error the event stays for the next call.
class EpollOutput {
 public:
  virtual Result<void> put(const EpollEvent& event) = 0;

 protected:
  ~EpollOutput() = default;
};
Result<size_t> epoll_wait(File& epoll, EpollOutput& output, size_t maximum, u64 deadline_ns);

struct PollItem {
  Ref<File> file;  // may be null: skipped
  u32 events;      // all that is wanted: poll(2) adds kErr and kHup itself
  u32 result;
};
Result<size_t> poll(PollItem* items, size_t count, u64 deadline_ns);

}  // namespace husk::vfs
