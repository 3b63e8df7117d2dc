// Page-table work as arrays of NubCall: batches and address spaces. See nub_abi.h for the operations.
//
// The array in VcpuShared belongs to one batch at a time (pending_batch). Another one that adds work flushes it first, so that
// operations stay in order although memory allocation may open a batch inside another. One vCPU: a single variable.
#include "kernel/cpu.h"
#include "platform/nub_calls.h"
#include "platform/platform.h"

namespace husk::platform {
namespace {

constinit PageTableBatch* pending_batch = nullptr;

}  // namespace

struct BatchQueue {
  static Result<void> submit(PageTableBatch& batch) {
    u32 count = batch.count_;
    batch.count_ = 0;
    if (pending_batch == &batch) pending_batch = nullptr;
    return count == 0 ? Result<void>() : run_nub_calls(count);
  }
  // Empties the array for a newcomer. An error belongs to the batch that asked, which reports it at its next operation.
  static void displace_pending() {
    if (pending_batch == nullptr) return;
    PageTableBatch& batch = *pending_batch;
    if (auto result = submit(batch); !result.ok() && batch.error_ == 0) batch.error_ = result.error().code();
  }
  static bool extends(const abi::NubCall& last, const abi::NubCall& call) {
    if (last.op != call.op || last.flags != call.flags || last.va + last.length != call.va) return false;
    return (call.op != abi::NubOp::map && call.op != abi::NubOp::copy) || last.pa + last.length == call.pa;
  }
  static Result<void> append(PageTableBatch& batch, abi::NubCall call) {
    if (call.length == 0) return {};
    if (pending_batch != &batch) {
      displace_pending();
      pending_batch = &batch;
    }
    auto calls = nub_calls();
    if (batch.count_ > 0 && extends(calls[batch.count_ - 1], call)) {
      calls[batch.count_ - 1].length += call.length;
      return {};
    }
    if (batch.count_ == calls.size()) {
      TRY(batch.flush());
      pending_batch = &batch;
    }
    call.space = batch.space_;
    calls[batch.count_++] = call;
    return {};
  }
};

Result<void> PageTableBatch::map(VirtAddr va, PhysAddr pa, u64 length, u32 protection) {
  return BatchQueue::append(*this, {.op = abi::NubOp::map, .flags = protection, .va = va.value, .pa = pa.value, .length = length});
}

Result<void> PageTableBatch::unmap(VirtAddr va, u64 length) {
  return BatchQueue::append(*this, {.op = abi::NubOp::unmap, .va = va.value, .length = length});
}

Result<void> PageTableBatch::protect(VirtAddr va, u64 length, u32 protection) {
  return BatchQueue::append(*this, {.op = abi::NubOp::protect, .flags = protection, .va = va.value, .length = length});
}

Result<void> PageTableBatch::copy(PhysAddr to, PhysAddr from, u64 length) {
  return BatchQueue::append(*this, {.op = abi::NubOp::copy, .va = to.value, .pa = from.value, .length = length});
}

Result<void> PageTableBatch::flush() {
  auto result = BatchQueue::submit(*this);
  int earlier = std::exchange(error_, 0);
  if (earlier != 0) return Error(earlier);
  return result;
}

Result<void> run_nub_call(const abi::NubCall& call) {
  BatchQueue::displace_pending();
  nub_calls()[0] = call;
  return run_nub_calls(1);
}

Result<u32> create_space() {
  TRY(run_nub_call({.op = abi::NubOp::space_create}));
  return static_cast<u32>(nub_calls()[0].pa);
}

void switch_space(u32 space) {
  auto result = run_nub_call({.op = abi::NubOp::space_switch, .space = space});
  HUSK_ASSERT(result.ok());
}

void destroy_space(u32 space) {
  auto result = run_nub_call({.op = abi::NubOp::space_destroy, .space = space});
  HUSK_ASSERT(result.ok());
}

Result<void> seal(VirtAddr va, u64 length) { return run_nub_call({.op = abi::NubOp::seal, .va = va.value, .length = length}); }

}  // namespace husk::platform
