// See dwarf_expression.h.
#include "image/elf/dwarf_expression.h"

#include "image/elf/dwarf_cursor.h"

namespace husk::image {
namespace {

constexpr size_t kStackMax = 64, kOperationsMax = 1000;

// DWARF 5 §7.7.1.
enum Operation : u8 {
  kDeref = 0x06,
  kConst1u = 0x08,
  kConst1s,
  kConst2u,
  kConst2s,
  kConst4u,
  kConst4s,
  kConst8u,
  kConst8s,
  kConstu,
  kConsts,
  kDup,
  kDrop,
  kOver,
  kPick,
  kSwap,
  kAnd = 0x1a,
  kMinus = 0x1c,
  kMul = 0x1e,
  kNeg,
  kNot,
  kOr,
  kPlus,
  kPlusConstant,
  kShl,
  kShr,
  kShra,
  kXor,
  kBra,
  kEq,
  kGe,
  kGt,
  kLe,
  kLt,
  kNe,
  kSkip,
  kLit0 = 0x30,
  kLit31 = 0x4f,
  kBreg0 = 0x70,
  kBreg16 = 0x80,
  kNop = 0x96,
};

class Machine {
 public:
  Machine(Bytes code, const DwarfRegisters& registers, const ReadWord& read) : code_(code), cursor_(code, 0), registers_(registers), read_(read) {}
  void push(std::optional<u64> value) {
    if (!value || size_ == kStackMax) {
      ok_ = false;
    } else {
      stack_[size_++] = *value;
    }
  }
  std::optional<u64> run() {
    for (size_t done = 0; ok_ && !cursor_.at_end(); ++done) {
      if (done == kOperationsMax) return std::nullopt;
      step(cursor_.get<u8>());
    }
    u64 result = pop();
    return ok_ && cursor_.ok() ? std::optional(result) : std::nullopt;
  }

 private:
  u64 pop() {
    if (size_ == 0) ok_ = false;
    return ok_ ? stack_[--size_] : 0;
  }
  void push_from_top(size_t index) { push(index < size_ ? std::optional(stack_[size_ - 1 - index]) : std::nullopt); }
  void jump(i64 distance) {
    u64 target = cursor_.offset() + static_cast<u64>(distance);
    cursor_ = DwarfCursor(code_, 0);
    cursor_.skip(target);
  }
  void step(u8 operation);
  bool constant(u8 operation);
  void binary(u8 operation);

  Bytes code_;
  DwarfCursor cursor_;
  const DwarfRegisters& registers_;
  const ReadWord& read_;
  u64 stack_[kStackMax];
  size_t size_ = 0;
  bool ok_ = true;
};

bool Machine::constant(u8 operation) {
  auto extended = [](i64 value) { return static_cast<u64>(value); };
  switch (operation) {
    case kConst1u: push(cursor_.get<u8>()); return true;
    case kConst1s: push(extended(cursor_.get<i8>())); return true;
    case kConst2u: push(cursor_.get<u16>()); return true;
    case kConst2s: push(extended(cursor_.get<i16>())); return true;
    case kConst4u: push(cursor_.get<u32>()); return true;
    case kConst4s: push(extended(cursor_.get<i32>())); return true;
    case kConst8u:
    case kConst8s: push(cursor_.get<u64>()); return true;
    case kConstu: push(cursor_.uleb()); return true;
    case kConsts: push(extended(cursor_.sleb())); return true;
    default: return false;
  }
}

void Machine::binary(u8 operation) {
  u64 b = pop(), a = pop();
  i64 signed_b = static_cast<i64>(b), signed_a = static_cast<i64>(a);
  switch (operation) {
    case kAnd: return push(a & b);
    case kMinus: return push(a - b);
    case kMul: return push(a * b);
    case kOr: return push(a | b);
    case kPlus: return push(a + b);
    case kShl: return push(b < 64 ? a << b : 0);
    case kShr: return push(b < 64 ? a >> b : 0);
    case kShra: return push(static_cast<u64>(signed_a >> (b < 64 ? b : 63)));
    case kXor: return push(a ^ b);
    case kEq: return push(a == b);
    case kGe: return push(signed_a >= signed_b);
    case kGt: return push(signed_a > signed_b);
    case kLe: return push(signed_a <= signed_b);
    case kLt: return push(signed_a < signed_b);
    case kNe: return push(a != b);
    default: ok_ = false;
  }
}

void Machine::step(u8 operation) {
  if (operation >= kLit0 && operation <= kLit31) return push(operation - kLit0);
  if (operation >= kBreg0 && operation <= kBreg16) {
    u64 distance = static_cast<u64>(cursor_.sleb());
    std::optional<u64> value = registers_[operation - kBreg0];
    return push(value ? std::optional(*value + distance) : std::nullopt);
  }
  if (constant(operation)) return;
  switch (operation) {
    case kDeref: return push(read_(pop()));
    case kDup: return push_from_top(0);
    case kDrop: pop(); return;
    case kOver: return push_from_top(1);
    case kPick: return push_from_top(cursor_.get<u8>());
    case kSwap: {
      u64 b = pop(), a = pop();
      push(b);
      return push(a);
    }
    case kNeg: return push(-pop());
    case kNot: return push(~pop());
    case kPlusConstant: return push(pop() + cursor_.uleb());
    case kSkip: return jump(cursor_.get<i16>());
    case kBra: {
      i64 distance = cursor_.get<i16>();
      if (pop() != 0) jump(distance);
      return;
    }
    case kNop: return;
    default: return binary(operation);
  }
}

}  // namespace

std::optional<u64> evaluate(Bytes expression, const DwarfRegisters& registers, std::optional<u64> pushed, const ReadWord& read) {
  Machine machine(expression, registers, read);
  if (pushed) machine.push(pushed);
  return machine.run();
}

}  // namespace husk::image
