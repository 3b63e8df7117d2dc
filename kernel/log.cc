#include "kernel/log.h"

#include <stdarg.h>

#include <algorithm>

#include "base/format.h"
#include "kernel/drivers/console.h"
#include "platform/platform.h"

namespace husk {

namespace {
constinit LogLevel shown = LogLevel::warning;
constexpr size_t kLineMax = 512;
}  // namespace

void log(LogLevel level, const char* format, ...) {
  if (level > shown) return;
  char line[1 + kLineMax];
  line[0] = static_cast<char>(level);
  va_list arguments;
  va_start(arguments, format);
  size_t size = std::min(format_to_v(line + 1, kLineMax, format, arguments), kLineMax - 1);
  va_end(arguments);
  if (drivers::has_control_console())
    return drivers::send_record(abi::RecordType::log, {reinterpret_cast<const u8*>(line), 1 + size}, false);
  line[1 + size] = '\n';
  platform::debug_write(line + 1, size + 1);
}

void set_log_level(LogLevel level) { shown = level; }

}  // namespace husk
