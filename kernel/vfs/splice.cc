// Bytes from one file to another inside the kernel: sendfile(2), splice(2), copy_file_range(2).
//
// What was read but cannot be written must not be lost: a pipe's bytes are consumed only when they are written, a file's
// position moves by what was written, and from anything else no more is read than a pipe has room for.
#include <algorithm>

#include "kernel/vfs/file.h"
#include "kernel/vfs/pipe.h"

namespace husk::vfs {

namespace {

constexpr size_t kChunk = 32 * kKiB;

Result<size_t> write_bytes(File& to, const u64* to_offset, u64 done, const void* bytes, size_t size) {
  IoSegment segment = IoBuffer::kernel_segment(bytes, size);
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
  u64 at = to_offset != nullptr ? *to_offset + done : 0;
  return to.write(buffer, to_offset != nullptr ? &at : nullptr);
}

// One read that waits as `from` does. Moves nothing when `from` is at its end.
Result<size_t> move_once(File& from, const u64* from_offset, File& to, const u64* to_offset, u64 done, size_t size, u8* chunk) {
  if (Pipe* pipe = pipe_of(to)) {
    while (pipe->space() == 0) {
      if (pipe->readers == 0) return Error(EPIPE);
      TRY(wait_for_change(to, pipe->queue));
    }
    size = std::min(size, pipe->space());
  }
  if (Pipe* pipe = pipe_of(from)) {
    while (pipe->size() == 0) {
      if (pipe->writers == 0) return size_t{0};
      TRY(wait_for_change(from, pipe->queue));
    }
    IoSegment piece = pipe->front();
    size_t count = std::min<size_t>(piece.size, size);
    size_t written = TRY(write_bytes(to, to_offset, done, reinterpret_cast<const void*>(piece.address), count));
    pipe->consume(written);
    pipe->queue.wake_all(kOut);
    return written;
  }
  IoSegment segment = IoBuffer::kernel_segment(chunk, std::min(size, kChunk));
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
  const bool seekable = from.kind == File::Kind::inode || from.kind == File::Kind::memfd;
  u64 at = from_offset != nullptr ? *from_offset + done : from.position;
  size_t got = TRY(from.read(buffer, from_offset != nullptr || seekable ? &at : nullptr));
  if (got == 0) return size_t{0};
  size_t written = TRY(write_bytes(to, to_offset, done, chunk, got));
  if (from_offset == nullptr && seekable) from.position += written;
  return written;
}

}  // namespace

Result<i64> pipe_splice(File& from, const u64* from_offset, File& to, const u64* to_offset, size_t size) {
  if (!from.readable() || !to.writable()) return Error(EBADF);
  if ((from_offset != nullptr && pipe_of(from) != nullptr) || (to_offset != nullptr && pipe_of(to) != nullptr)) return Error(ESPIPE);
  Vec<u8> chunk;
  if (pipe_of(from) == nullptr) TRY(chunk.resize(std::min(size, kChunk)));
  u64 done = 0;
  while (done < size) {
    Result<size_t> moved = move_once(from, from_offset, to, to_offset, done, size - done, chunk.data());
    if (!moved.ok() && done == 0) return moved.error();
    if (!moved.ok() || *moved == 0) break;
    done += *moved;
    // A stream gives what it has, once.
    if (from.wait_queue() != nullptr && (pipe_of(from) == nullptr || pipe_of(from)->size() == 0)) break;
  }
  return static_cast<i64>(done);
}

}  // namespace husk::vfs
