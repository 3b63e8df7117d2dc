// flags: -pthread
// Threads, mutexes, condition variables, thread-local storage, exceptions across threads, pthread_cancel, barriers.
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

thread_local int local_value = 7;

static void* forever(void*) {
  for (;;) usleep(1000);
  return nullptr;
}

int main() {
  std::vector<std::thread> threads;
  std::mutex mutex;
  long sum = 0;
  for (int i = 0; i < 16; ++i)
    threads.emplace_back([&, i] {
      for (int j = 0; j < 1000; ++j) {
        std::lock_guard<std::mutex> guard(mutex);
        sum += i;
      }
      local_value = i;
    });
  for (auto& thread : threads) thread.join();
  std::cout << sum << " " << local_value << std::endl;

  std::condition_variable condition;
  int turn = 0;
  std::thread pong([&] {
    for (int i = 0; i < 1000; ++i) {
      std::unique_lock<std::mutex> lock(mutex);
      condition.wait(lock, [&] { return turn == 1; });
      turn = 0;
      condition.notify_one();
    }
  });
  for (int i = 0; i < 1000; ++i) {
    std::unique_lock<std::mutex> lock(mutex);
    condition.wait(lock, [&] { return turn == 0; });
    turn = 1;
    condition.notify_one();
  }
  pong.join();
  std::cout << "ping-pong" << std::endl;

  auto future = std::async(std::launch::async, []() -> int { throw std::runtime_error("from a thread"); });
  try {
    future.get();
  } catch (const std::exception& e) {
    std::cout << e.what() << std::endl;
  }

  pthread_t id;
  pthread_create(&id, nullptr, forever, nullptr);
  usleep(2000);
  pthread_cancel(id);
  void* result;
  pthread_join(id, &result);
  std::cout << (result == PTHREAD_CANCELED) << std::endl;

  // Pre-emption: a thread that never calls the kernel must not keep the others from running.
  std::atomic<bool> stop{false};
  std::thread spinner([&] {
    while (!stop.load(std::memory_order_relaxed)) {}
  });
  usleep(20000);
  stop = true;
  spinner.join();
  std::cout << "pre-empted" << std::endl;

  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 4);
  std::atomic<int> serial{0};
  std::vector<std::thread> group;
  for (int i = 0; i < 4; ++i)
    group.emplace_back([&] {
      for (int j = 0; j < 100; ++j)
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) ++serial;
    });
  for (auto& thread : group) thread.join();
  std::cout << serial << std::endl;

  sem_t semaphore;
  sem_init(&semaphore, 0, 0);
  timespec deadline;
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_nsec += 5000000;
  if (deadline.tv_nsec >= 1000000000) deadline.tv_sec++, deadline.tv_nsec -= 1000000000;
  std::cout << sem_timedwait(&semaphore, &deadline) << " " << (errno == ETIMEDOUT) << std::endl;

  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* stack;
  size_t size;
  pthread_attr_getstack(&attributes, &stack, &size);
  char here;
  std::cout << (&here > static_cast<char*>(stack) && &here < static_cast<char*>(stack) + size) << std::endl;

  for (int round = 0; round < 2000; ++round) {
    std::thread short_lived([] {});
    short_lived.join();
  }
  std::cout << "created and joined" << std::endl;
  return 3;
}
