// Bytes from one file to another inside the kernel: sendfile(2), splice(2), copy_file_range(2).
//
// What was read but cannot be written must not be lost: a pipe's bytes are consumed only when they are written, a file's
// position moves by what was written, and from anything else no more is read than a pipe has room for.
//
// A socket takes bytes from where they are, in a pipe or a file's pages: the copy into its send queue is the only one.
#include <algorithm>

#include "kernel/vfs/file.h"
#include "kernel/vfs/pipe.h"
#include "kernel/vfs/socket.h"

namespace husk::vfs {

namespace {

constexpr size_t kChunk = 32 * kKiB;

Result<size_t> write_bytes(File& to, const u64* to_offset, u64 done, const void* bytes, size_t size) {
  IoSegment segment = IoBuffer::kernel_segment(bytes, size);
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
  u64 at = to_offset != nullptr ? *to_offset + done : 0;
  return to.write(buffer, to_offset != nullptr ? &at : nullptr);
}

// What goes into one socket; says whether more follows, so that segments can be full (MSG_MORE). Never blocks.
class SocketSink final : public IoSink {
 public:
  SocketSink(Socket& socket, u64 size) : socket_(socket), left_(size) {}
  Result<size_t> take(const void* from, size_t size) override {
    IoSegment segment = IoBuffer::kernel_segment(from, size);
    IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
    SocketMessage message;
    message.data = &buffer;
    message.flags = kMessageDontWait | (left_ > size ? u32{kMessageMore} : 0);
    size_t sent = TRY(socket_.send(message));
    left_ -= std::min<u64>(sent, left_);
    return sent;
  }

 private:
  Socket& socket_;
  u64 left_;
};

Socket* socket_of(File& file) { return file.kind == File::Kind::socket ? &static_cast<Socket&>(file) : nullptr; }

// Nothing happens between a send that found no room and this, so no change is missed.
Result<void> wait_to_send(Socket& to) {
  if (to.nonblocking()) return Error(EAGAIN);
  sched::expect_events();
  (void)to.poll_events();  // some sockets have to be asked before they tell
  const u64 timeout_ns = to.send_timeout_ns;
  sched::Wake wake = to.wait_queue()->wait(timeout_ns == time::kForever ? timeout_ns : time::monotonic_ns() + timeout_ns);
  if (wake == sched::Wake::woken) return {};
  return Error(wake == sched::Wake::interrupted ? EINTR : EAGAIN);
}

// Sends by `send`, which does not block, as `to` wishes: gives EAGAIN or waits.
template <typename Send>
Result<size_t> send_waiting(Socket& to, Send send) {
  for (;;) {
    Result<size_t> sent = send();
    if (sent.ok() || sent.error().code() != EAGAIN) return sent;
    TRY(wait_to_send(to));
  }
}

Result<size_t> send_from_file(File& from, u64 at, Socket& to, size_t size) {
  const u64 end = TRY(from.stat()).size;
  return send_waiting(to, [&]() -> Result<size_t> {
    SocketSink sink(to, std::min<u64>(size, end - std::min(at, end)));
    const IoSegment extent{0, size};
    IoBuffer buffer(sink, extent);
    return from.read(buffer, &at);
  });
}

Result<size_t> move_from_pipe(File& from, Pipe& pipe, File& to, const u64* to_offset, u64 done, size_t size) {
  while (pipe.size() == 0) {
    if (pipe.writers == 0) return size_t{0};
    TRY(wait_for_change(from, pipe.queue));
  }
  size_t written;
  if (Socket* socket = socket_of(to)) {
    written = TRY(send_waiting(*socket, [&]() -> Result<size_t> {
      const IoSegment piece = pipe.front();
      const size_t count = std::min<size_t>(piece.size, size);
      return count > 0 ? SocketSink(*socket, std::min(size, pipe.size())).take(reinterpret_cast<const void*>(piece.address), count) : size_t{0};
    }));
  } else {
    const IoSegment piece = pipe.front();
    written = TRY(write_bytes(to, to_offset, done, reinterpret_cast<const void*>(piece.address), std::min<size_t>(piece.size, size)));
  }
  pipe.consume(std::min(written, pipe.size()));  // another reader may have been here while the write waited
  pipe.queue.wake_all(kOut);
  return written;
}

bool is_seekable(const File& file) { return file.kind == File::Kind::inode || file.kind == File::Kind::memfd; }

// One read that waits as `from` does. Moves nothing when `from` is at its end.
Result<size_t> move_once(File& from, const u64* from_offset, File& to, const u64* to_offset, u64 done, size_t size, u8* chunk) {
  if (Pipe* pipe = pipe_of(to)) {
    while (pipe->space() == 0) {
      if (pipe->readers == 0) return Error(EPIPE);
      TRY(wait_for_change(to, pipe->queue));
    }
    size = std::min(size, pipe->space());
  }
  if (Pipe* pipe = pipe_of(from)) return move_from_pipe(from, *pipe, to, to_offset, done, size);
  const bool seekable = is_seekable(from);
  u64 at = from_offset != nullptr ? *from_offset + done : from.position;
  if (Socket* socket = seekable ? socket_of(to) : nullptr) {
    size_t sent = TRY(send_from_file(from, at, *socket, size));
    if (from_offset == nullptr) from.position += sent;
    return sent;
  }
  IoSegment segment = IoBuffer::kernel_segment(chunk, std::min(size, kChunk));
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
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
  std::unique_ptr<u8[]> chunk;
  if (pipe_of(from) == nullptr && !(is_seekable(from) && socket_of(to) != nullptr)) {
    chunk.reset(new (std::nothrow) u8[std::min(size, kChunk)]);
    if (!chunk) return Error(ENOMEM);
  }
  u64 done = 0;
  while (done < size) {
    Result<size_t> moved = move_once(from, from_offset, to, to_offset, done, size - done, chunk.get());
    if (!moved.ok() && done == 0) return moved.error();
    if (!moved.ok() || *moved == 0) break;
    done += *moved;
    // A stream gives what it has, once.
    if (from.wait_queue() != nullptr && (pipe_of(from) == nullptr || pipe_of(from)->size() == 0)) break;
  }
  return static_cast<i64>(done);
}

}  // namespace husk::vfs
