#include "kernel/log.h"

#include <stdarg.h>

#include <algorithm>

#include "base/format.h"
#include "platform/platform.h"

namespace husk {

namespace {
constinit LogLevel shown = LogLevel::warning;
constinit LogSink log_sink = nullptr;
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
  if (log_sink != nullptr) return log_sink({reinterpret_cast<const u8*>(line), 1 + size});
  line[1 + size] = '\n';
  platform::debug_write(line + 1, size + 1);
}

void set_log_level(LogLevel level) { shown = level; }
void set_log_sink(LogSink sink) { log_sink = sink; }

}  // namespace husk
