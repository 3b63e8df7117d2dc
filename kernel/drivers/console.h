// The machine's three consoles as the rest of the kernel sees them (abi/control_records.h), whatever the transport.
//
// Streams move program memory without an intermediate copy where they can. Nothing here knows terminals: vfs/tty does.
#pragma once

#include <span>

#include "base/result.h"
#include "base/types.h"
#include "abi/control_records.h"
#include "kernel/drivers/virtio/transport.h"
#include "kernel/sched/sched.h"
#include "kernel/vfs/io.h"

namespace husk::drivers {

enum class Stream : u8 { input_output = 0, error = 1, control = 2 };

// Starts the first three devices; on a PC the 16550 serves when there are none. Elsewhere that is ENODEV.
Result<void> init_consoles(std::span<Owned<virtio::Transport>> devices, bool is_pc);

// Bytes from the monitor. Blocks unless nonblocking; 0 at end of input.
Result<size_t> read_input(vfs::IoBuffer& buffer, bool nonblocking);
bool input_ready();  // bytes or end of input
sched::WaitQueue& input_queue();

// Bytes to the monitor; returns when they are queued (not necessarily written). EPIPE when the reader is gone; what
// the host said when it could not write.
Result<size_t> write_output(Stream stream, vfs::IoBuffer& buffer, bool nonblocking);
bool output_ready(Stream stream);
sched::WaitQueue& output_queue(Stream stream);

// A control record (guest → monitor). Callable from panic: polls instead of blocking if `may_block` is false.
bool has_control_console();
void send_record(abi::RecordType type, std::span<const u8> body, bool may_block);
// Records from the monitor other than input_end and output_closed (window size, signals) come here, in kernel context.
using RecordHandler = void (*)(abi::RecordType type, std::span<const u8> body);
void set_record_handler(RecordHandler handler);

void drain_output();  // everything queued has been taken by the monitor (before power off)

}  // namespace husk::drivers
