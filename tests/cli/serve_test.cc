// quire serve as its operator sees it: readiness, signals, exit codes. Its answers: tests/serve.
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/quire_process.h"

namespace quire {
namespace {

class ServeCommandTest : public CliTest {
 protected:
  // Waits until the server is ready.
  pid_t serve(const std::string& model, const Arguments& flags) {
    Arguments arguments = {
        "serve", model, "--uds", path("socket"), "--kv-cache-memory-bytes", "64M"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int log = open(path("log").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const pid_t child = start(arguments, null, null, log);
    close(null);
    close(log);
    EXPECT_TRUE(logs("event=ready")) << read_file(path("log"));
    return child;
  }
  bool logs(const std::string& text) const {
    return eventually([&] { return read_file(path("log")).find(text) != std::string::npos; });
  }
  // A request on a connection of its own.
  int send(const std::string& body) const {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path("socket").copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string bytes =
        "POST /v1/completions HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\n\r\n" + body;
    EXPECT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    return fd;
  }
  static std::string read_some(int fd) {
    char bytes[4096];
    const ssize_t n = read(fd, bytes, sizeof bytes);
    return n > 0 ? std::string(bytes, static_cast<size_t>(n)) : "";
  }
};

constexpr const char* kEndless =
    R"({"prompt": "a", "max_tokens": 200000, "ignore_eos": true, "temperature": 0, "stream": true})";

TEST_F(ServeCommandTest, TerminationEndsAnIdleServerWell) {
  const pid_t child = serve(tiny(), {});
  const int fd = send(R"({"prompt": "a", "max_tokens": 2})");
  EXPECT_NE(read_some(fd).find("200 OK"), std::string::npos);
  kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 0) << read_file(path("log"));
  EXPECT_EQ(read_some(fd), "");
  close(fd);
  EXPECT_TRUE(logs("event=request"));
  EXPECT_FALSE(std::filesystem::exists(path("socket")));
}

TEST_F(ServeCommandTest, RequestsAreCutAfterTheTimeout) {
  const pid_t child = serve(endless_model(), {"--shutdown-timeout", "1"});
  const int fd = send(kEndless);
  EXPECT_NE(read_some(fd), "");
  kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 0) << read_file(path("log"));
  close(fd);
  EXPECT_TRUE(logs("event=stopped cut=1"));
}

TEST_F(ServeCommandTest, SecondSignalStopsAtOnce) {
  const pid_t child = serve(endless_model(), {"--shutdown-timeout", "1000"});
  const int fd = send(kEndless);
  EXPECT_NE(read_some(fd), "");
  kill(child, SIGTERM);
  EXPECT_TRUE(logs("event=draining in_flight=1"));
  kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 130) << read_file(path("log"));
  close(fd);
}

TEST_F(ServeCommandTest, WrongFlagsAreRefusedBeforeTheModelIsRead) {
  const auto refused = [&](const Arguments& flags) {
    Arguments arguments = {"serve", "no-such-model"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = quire(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    return outcome.err;
  };
  EXPECT_NE(refused({"--prot", "1"}).find("did you mean --port?"), std::string::npos);
  EXPECT_NE(refused({"--port", "70000"}).find("--port is 70000"), std::string::npos);
  EXPECT_NE(refused({"--ssl-keyfile", "x"}).find("--ssl-certfile"), std::string::npos);
  EXPECT_NE(refused({"--allowed-origins", "*"}).find("JSON list"), std::string::npos);
  EXPECT_NE(refused({"--stall-timeout", "0"}).find("--stall-timeout is 0"), std::string::npos);
  EXPECT_NE(refused({"--metrics-prefix", "a-b"}).find("--metrics-prefix"), std::string::npos);
  EXPECT_NE(refused({"--api-key", ""}).find("--api-key"), std::string::npos);
}

}  // namespace
}  // namespace quire
