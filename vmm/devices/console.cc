// See vmm/devices/console.h.
#include "vmm/devices/console.h"

#include <errno.h>

#include "abi/virtio/console.h"

namespace husk::vmm {

namespace virtio = abi::virtio;

namespace {

constexpr size_t kVectorsMax = 512;  // buffers in one system call
constexpr int kRoundsMax = 16;       // then the other devices get their turn

}  // namespace

ConsoleDevice::ConsoleDevice(std::string name, ByteSource* source, ByteSink* sink, Events events)
    : Device(std::move(name), virtio::DeviceId::console, virtio::kConsoleQueueCount), source_(source), sink_(sink), events_(std::move(events)) {}

void ConsoleDevice::reset() {
  transmit_.clear();
  receive_.clear();
  transmitted_ = 0;
}

bool ConsoleDevice::process() {
  if (!driver_ok || !error().empty()) return false;
  bool again = transmit();
  return receive() || again;
}

void ConsoleDevice::fill(Virtqueue& queue, std::deque<Chain>& chains) {
  size_t vectors = 0;
  for (const Chain& chain : chains) vectors += chain.readable.size() + chain.writable.size();
  while (vectors < kVectorsMax) {
    Chain chain;
    if (!queue.pop(&chain)) return;
    ++metrics_.requests;
    vectors += chain.readable.size() + chain.writable.size();
    chains.push_back(std::move(chain));
  }
}

void ConsoleDevice::collect(const std::deque<Chain>& chains, bool readable, u64 skip) {
  vectors_.clear();
  for (const Chain& chain : chains) {
    for (iovec part : readable ? chain.readable : chain.writable) {
      if (vectors_.size() == kVectorsMax) return;
      if (skip >= part.iov_len) {
        skip -= part.iov_len;
        continue;
      }
      vectors_.push_back({static_cast<u8*>(part.iov_base) + skip, part.iov_len - skip});
      skip = 0;
    }
  }
}

bool ConsoleDevice::transmit() {
  Virtqueue& queue = queues[virtio::kConsoleTransmitQueue];
  queue.suppress_doorbells();
  bool again = true;
  for (int round = 0; round < kRoundsMax; ++round) {
    fill(queue, transmit_);
    complete_transmit(0);  // requests without bytes
    if (transmit_.empty()) {
      if (queue.await_doorbell()) continue;
      again = false;
      break;
    }
    collect(transmit_, true, transmitted_);
    ssize_t written = 0;
    if (sink_ == nullptr || output_closed_) {
      for (const iovec& part : vectors_) written += static_cast<ssize_t>(part.iov_len);
    } else {
      written = sink_->write(vectors_);
    }
    if (written == -EAGAIN) {
      again = false;
      break;
    }
    if (written < 0) {
      output_closed_ = true;
      events_.output_closed(static_cast<int>(-written));
      continue;
    }
    metrics_.bytes_out += static_cast<u64>(written);
    complete_transmit(static_cast<u64>(written));
  }
  notify_if_wanted(queue);
  return again;
}

void ConsoleDevice::complete_transmit(u64 bytes) {
  transmitted_ += bytes;
  while (!transmit_.empty() && transmitted_ >= transmit_.front().readable_size) {
    transmitted_ -= transmit_.front().readable_size;
    queues[virtio::kConsoleTransmitQueue].push(transmit_.front().head, 0);
    transmit_.pop_front();
  }
}

bool ConsoleDevice::receive() {
  if (source_ == nullptr || input_ended_) return false;
  Virtqueue& queue = queues[virtio::kConsoleReceiveQueue];
  queue.suppress_doorbells();
  bool again = true;
  for (int round = 0; round < kRoundsMax; ++round) {
    fill(queue, receive_);
    while (!receive_.empty() && receive_.front().writable_size == 0) {
      queue.push(receive_.front().head, 0);
      receive_.pop_front();
    }
    if (receive_.empty()) {
      if (queue.await_doorbell()) continue;
      again = false;
      break;
    }
    collect(receive_, false, 0);
    ssize_t count = source_->read(vectors_);
    if (count > 0) {
      events_.input_arrived(vectors_);
      metrics_.bytes_in += static_cast<u64>(count);
      complete_receive(static_cast<u64>(count));
      continue;
    }
    if (count != -EAGAIN) {  // the end, or an error: to the program it is the end
      input_ended_ = true;
      events_.input_ended(metrics_.bytes_in);
    }
    again = false;
    break;
  }
  notify_if_wanted(queue);
  return again;
}

void ConsoleDevice::complete_receive(u64 bytes) {
  while (bytes > 0 && !receive_.empty()) {
    const Chain& chain = receive_.front();
    u64 part = std::min(bytes, chain.writable_size);
    queues[virtio::kConsoleReceiveQueue].push(chain.head, static_cast<u32>(part));
    bytes -= part;
    receive_.pop_front();
  }
}

}  // namespace husk::vmm
