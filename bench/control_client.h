// Speaks proto/control.proto to a daemon over its socket, so that no start of a kaictl process is in a figure.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/control.pb.h"
#include "proto/frame.h"

namespace kai::bench {

class ControlClient {
 public:
  static Result<ControlClient> connect(const std::string& socket_path);

  /// Sends without waiting; gives the request's id.
  Result<std::uint64_t> send(control::Request request);
  /// The next response of any request. Progress and records are passed over.
  Result<control::Response> receive();
  /// One request and its end: Done's document; Failed is an error.
  Result<std::string> call(control::Request request);

 private:
  explicit ControlClient(Fd socket) : socket_(std::move(socket)), decoder_(kMaxFrameBytes + kEnvelopeOverheadBytes) {}

  Fd socket_;
  FrameDecoder decoder_;
  std::uint64_t last_id_ = 0;
};

control::Request start_request(const std::string& agent);
control::Request stop_request(const std::string& agent);
control::Request status_request(const std::string& agent);
control::Request send_request(const std::string& agent, const std::string& capability, const std::string& payload);

}  // namespace kai::bench
