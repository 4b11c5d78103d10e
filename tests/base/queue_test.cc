#include "base/queue.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>

namespace quire {
namespace {

TEST(BoundedQueue, RefusesWhatExceedsItsCapacityAndTakesItAfterADrain) {
  BoundedQueue<int> queue(2);
  EXPECT_EQ(queue.try_push(1), PushResult::kOk);
  EXPECT_EQ(queue.try_push(2), PushResult::kOk);
  EXPECT_EQ(queue.try_push(3), PushResult::kFull);
  std::vector<int> out;
  EXPECT_TRUE(queue.drain(&out, false));
  EXPECT_EQ(out, (std::vector<int>{1, 2}));
  EXPECT_EQ(queue.try_push(3), PushResult::kOk);
}

TEST(BoundedQueue, UncountedMessagesAlwaysGoThroughAndKeepTheirPlaceInLine) {
  BoundedQueue<int> queue(1);
  EXPECT_TRUE(queue.push_always(1));
  EXPECT_EQ(queue.try_push(2), PushResult::kOk);
  EXPECT_TRUE(queue.push_always(3));
  EXPECT_EQ(queue.try_push(4), PushResult::kFull);
  std::vector<int> out;
  queue.drain(&out, true);
  EXPECT_EQ(out, (std::vector<int>{1, 2, 3}));
}

TEST(BoundedQueue, AfterCloseItDrainsAndThenEnds) {
  BoundedQueue<int> queue(4);
  queue.try_push(1);
  queue.close();
  EXPECT_EQ(queue.try_push(2), PushResult::kClosed);
  EXPECT_FALSE(queue.push_always(3));
  std::vector<int> out;
  EXPECT_TRUE(queue.drain(&out, true));
  EXPECT_EQ(out, std::vector<int>{1});
  EXPECT_FALSE(queue.drain(&out, true));
}

TEST(BoundedQueue, CloseWakesABlockedConsumer) {
  BoundedQueue<int> queue(1);
  std::thread consumer([&] {
    std::vector<int> out;
    EXPECT_FALSE(queue.drain(&out, true));
  });
  queue.close();
  consumer.join();
}

TEST(BoundedQueue, ManyProducersLoseNothingAndKeepTheirOwnOrder) {
  constexpr int kProducers = 4, kItems = 2000;
  BoundedQueue<std::pair<int, int>> queue(64);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < kItems; ++i) {
        while (queue.try_push({p, i}) == PushResult::kFull) std::this_thread::yield();
      }
    });
  }
  std::map<int, int> next;
  int total = 0;
  std::vector<std::pair<int, int>> items;
  while (total < kProducers * kItems) {
    items.clear();
    queue.drain(&items, true);
    for (auto [p, i] : items) {
      ASSERT_EQ(i, next[p]++);
      ++total;
    }
  }
  for (std::thread& t : producers) t.join();
}

TEST(Monitor, WaitForGivesUpAfterItsTimeout) {
  Monitor<int> monitor(0);
  const auto read = [](int value) { return value; };
  EXPECT_EQ(monitor.wait_for(std::chrono::milliseconds(5), [](int v) { return v > 0; }, read), 0);
  monitor.update([](int& value) { value = 7; });
  EXPECT_EQ(monitor.wait([](int v) { return v > 0; }, read), 7);
}

}  // namespace
}  // namespace quire
