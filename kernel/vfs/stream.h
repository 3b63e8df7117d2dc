// Byte streams outside the machine (the consoles) as files: plain ones, which look like pipes, and the terminal in tty.h.
//
// boot/ implements Stream over drivers/console.h; vfs knows no driver.
#pragma once

#include "kernel/sched/sched.h"
#include "kernel/vfs/file.h"
#include "kernel/vfs/io.h"

namespace husk::vfs {

class Stream {
 public:
  virtual Result<size_t> read(IoBuffer& buffer, bool nonblocking) = 0;  // 0 at the end of input
  virtual bool input_ready() = 0;                                       // bytes, or the end
  virtual sched::WaitQueue& input_queue() = 0;
  virtual Result<size_t> write(IoBuffer& buffer, bool nonblocking) = 0;  // EPIPE when the reader is gone
  virtual bool output_ready() = 0;
  virtual sched::WaitQueue& output_queue() = 0;

 protected:
  ~Stream() = default;
};

// `stream` must outlive the file. `flags`: O_RDONLY or O_WRONLY, O_NONBLOCK.
Result<Ref<File>> make_stream_file(Stream& stream, u32 flags);

}  // namespace husk::vfs
