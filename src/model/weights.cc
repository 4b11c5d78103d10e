#include "model/weights.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/backend.h"
#include "kernels/pack.h"

namespace quire {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPieceBytes = 1 << 20;  // of the checkpoint that a thread reads at a time
constexpr size_t kMaxNamed = 10;          // missing tensors that a message names

int64_t align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t row_bytes(const TensorInfo& tensor) {
  const DTypeInfo& info = dtype_info(tensor.dtype);
  return tensor.shape.back() / info.elems * info.bytes;
}

// Rotary embedding rotates pairs (i, i + d/2) of a head here. GGUF files of some architectures hold
// each head's rows so that the pairs are (2i, 2i + 1): the stored row of our row.
int64_t stored_row(int64_t row, int64_t head_dim) {
  if (head_dim == 0) return row;
  const int64_t in_head = row % head_dim, half = head_dim / 2;
  const int64_t stored = in_head < half ? 2 * in_head : 2 * (in_head - half) + 1;
  return row - in_head + stored;
}

std::string list_of(const std::vector<std::string>& items) {
  std::string text;
  for (size_t i = 0; i < std::min(items.size(), kMaxNamed); ++i) {
    text += (i == 0 ? "" : ", ") + items[i];
  }
  if (items.size() > kMaxNamed) {
    text += " and " + std::to_string(items.size() - kMaxNamed) + " more";
  }
  return text;
}

}  // namespace

// A thread's own memory while it packs.
struct WeightLoader::Buffers {
  std::vector<unsigned char> raw;      // as read
  std::vector<unsigned char> ordered;  // rows in our order
};

WeightLoader WeightLoader::measuring(const Checkpoint& checkpoint,
                                     CheckpointFormat format,
                                     const Architecture& architecture) {
  WeightLoader loader(checkpoint, format, architecture);
  loader.base_ = reinterpret_cast<unsigned char*>(kAlignment);
  loader.capacity_ = INT64_MAX / 2;
  return loader;
}

Result<WeightLoader> WeightLoader::create(const Checkpoint& checkpoint,
                                          CheckpointFormat format,
                                          const Architecture& architecture,
                                          int64_t bytes) {
  WeightLoader loader(checkpoint, format, architecture);
  QUIRE_ASSIGN_OR_RETURN(loader.buffer_, HugeBuffer::allocate(bytes, "the weights"));
  loader.base_ = loader.buffer_.data();
  loader.capacity_ = bytes;
  return loader;
}

const TensorInfo* WeightLoader::want(const std::string& name,
                                     std::initializer_list<int64_t> shape) {
  const TensorInfo* tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    missing_.push_back(name);
    return nullptr;
  }
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    wrong_.push_back("tensor " + name + " has shape " + shape_to_string(tensor->shape) +
                     ", wanted " + shape_to_string({shape.begin(), shape.size()}));
    return nullptr;
  }
  if (!dtype_info(tensor->dtype).is_weight) {
    wrong_.push_back("tensor " + name + " has type " + dtype_info(tensor->dtype).name +
                     ", which weights cannot have");
    return nullptr;
  }
  return tensor;
}

unsigned char* WeightLoader::place(int64_t bytes) {
  unsigned char* address = base_ + used_;
  used_ += align(bytes);
  QUIRE_CHECK(used_ <= capacity_);
  return address;
}

PackedMatrix WeightLoader::matrix(
    const std::string& name, int64_t rows, int64_t k, int64_t first_row, int rotary_heads) {
  const TensorInfo* tensor = want(name, {first_row + rows, k});
  if (tensor == nullptr) return {};
  const bool interleaved =
      format_ == CheckpointFormat::kGguf && rotary_heads > 0 && architecture_.gguf_interleaved_rope;
  unsigned char* destination = place(packed_bytes(tensor->dtype, rows, k));
  jobs_.push_back({tensor,
                   first_row,
                   rows,
                   k,
                   interleaved ? rows / rotary_heads : 0,
                   /*is_vector=*/false,
                   destination});
  return {tensor->dtype, rows, k, destination};
}

void WeightLoader::vector_into(const std::string& name,
                               int64_t size,
                               int rotary_heads,
                               float* destination) {
  const TensorInfo* tensor = want(name, {size});
  if (tensor == nullptr) return;
  const bool interleaved =
      format_ == CheckpointFormat::kGguf && rotary_heads > 0 && architecture_.gguf_interleaved_rope;
  jobs_.push_back({tensor,
                   0,
                   1,
                   size,
                   interleaved ? size / rotary_heads : 0,
                   /*is_vector=*/true,
                   reinterpret_cast<unsigned char*>(destination)});
}

float* WeightLoader::vector(const std::string& name, int64_t size) {
  if (want(name, {size}) == nullptr) return nullptr;
  auto* destination = reinterpret_cast<float*>(place(size * 4));
  vector_into(name, size, 0, destination);
  return destination;
}

Linear WeightLoader::linear(int layer,
                            std::initializer_list<Segment> segments,
                            int64_t k,
                            bool bias) {
  Linear linear;
  linear.k = k;
  auto name_of = [&](const Segment& segment, const char* suffix) {
    return checkpoint_name(architecture_.tensor_names, format_, segment.name, layer, suffix);
  };
  for (const Segment& segment : segments) {
    linear.names.emplace_back(segment.name);
    linear.segments.push_back(
        matrix(name_of(segment, ".weight"), segment.rows, k, 0, segment.rotary_heads));
    linear.n += segment.rows;
  }
  if (!bias) return linear;
  bool complete = true;
  for (const Segment& segment : segments) {
    complete &= want(name_of(segment, ".bias"), {segment.rows}) != nullptr;
  }
  if (!complete) return linear;
  auto* values = reinterpret_cast<float*>(place(linear.n * 4));
  linear.bias = values;
  for (const Segment& segment : segments) {
    vector_into(name_of(segment, ".bias"), segment.rows, segment.rotary_heads, values);
    values += segment.rows;
  }
  return linear;
}

PackedMatrix WeightLoader::table(const char* name, int64_t rows, int64_t k, int64_t first_row) {
  return matrix(checkpoint_name(architecture_.tensor_names, format_, name, 0, ".weight"),
                rows,
                k,
                first_row,
                0);
}

Linear WeightLoader::lm_head(int64_t vocab, int64_t k, const PackedMatrix& embedding, bool tied) {
  Linear head;
  if (tied) {
    head.names = {"embedding"};
    head.segments = {embedding};
    head.n = vocab;
    head.k = k;
  } else {
    head = linear(0, {{"lm_head", vocab}}, k, /*bias=*/false);
  }
  head.is_output_head = true;
  return head;
}

Norm WeightLoader::rms_norm(int layer, const char* name, int64_t size, double eps) {
  return {.kind = NormKind::kRms,
          .weight = vector(
              checkpoint_name(architecture_.tensor_names, format_, name, layer, ".weight"), size),
          .eps = static_cast<float>(eps)};
}

Norm WeightLoader::layer_norm(int layer, const char* name, int64_t size, double eps) {
  auto load = [&](const char* suffix) {
    return vector(checkpoint_name(architecture_.tensor_names, format_, name, layer, suffix), size);
  };
  const float* weight = load(".weight");
  return {.kind = NormKind::kLayer,
          .weight = weight,
          .bias = load(".bias"),
          .eps = static_cast<float>(eps)};
}

Status WeightLoader::check_requests() const {
  if (!missing_.empty()) {
    return not_found("the checkpoint lacks " + std::to_string(missing_.size()) + " tensors of " +
                     architecture_.name + ": " + list_of(missing_));
  }
  if (!wrong_.empty()) return data_loss(list_of(wrong_));
  return Status();
}

// Jobs lie in memory in the order in which they were asked for, so that what is between the starts
// of two is the first one's, its padding included.
std::vector<PackedGroup> WeightLoader::packed_groups() const {
  std::vector<PackedGroup> groups;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    const Job& job = jobs_[i];
    const unsigned char* end = i + 1 < jobs_.size() ? jobs_[i + 1].destination : base_ + used_;
    const char* group = tensor_group(architecture_.tensor_names, format_, job.tensor->name);
    const DType type = job.is_vector ? DType::kF32 : job.tensor->dtype;
    auto found = std::ranges::find_if(
        groups, [&](const PackedGroup& g) { return g.group == group && g.type == type; });
    if (found == groups.end()) found = groups.insert(groups.end(), PackedGroup{group, type});
    found->num_tensors += 1;
    found->bytes += end - job.destination;
  }
  return groups;
}

std::vector<WeightLoader::Piece> WeightLoader::cut_into_pieces() const {
  std::vector<Piece> pieces;
  for (const Job& job : jobs_) {
    const int64_t panels = (job.rows + kPanelRows - 1) / kPanelRows;
    const int64_t step = std::max<int64_t>(1, kPieceBytes / (kPanelRows * row_bytes(*job.tensor)));
    for (int64_t begin = 0; begin < panels; begin += step) {
      pieces.push_back({&job, begin, std::min(panels, begin + step)});
    }
  }
  return pieces;
}

// Our rows [row, row + count) of a matrix to buffers.raw, or in buffers.ordered when they are
// stored in another order.
Status WeightLoader::read_rows(const Job& job, int64_t row, int64_t count, Buffers& buffers) const {
  const int64_t size = row_bytes(*job.tensor);
  const int64_t head_dim = job.rope_head_dim;
  // The permutation stays inside heads: read whole heads.
  const int64_t begin = head_dim == 0 ? row : row / head_dim * head_dim;
  int64_t end = row + count;
  if (head_dim > 0) end = (end + head_dim - 1) / head_dim * head_dim;
  buffers.raw.resize(static_cast<size_t>((end - begin) * size));
  QUIRE_RETURN_IF_ERROR(checkpoint_.read(
      *job.tensor, (job.first_row + begin) * size, (end - begin) * size, buffers.raw.data()));
  if (head_dim == 0) return Status();
  buffers.ordered.resize(static_cast<size_t>(count * size));
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(buffers.ordered.data() + i * size,
                buffers.raw.data() + (stored_row(row + i, head_dim) - begin) * size,
                static_cast<size_t>(size));
  }
  return Status();
}

Status WeightLoader::load_vector(const Job& job, Buffers& buffers) const {
  buffers.raw.resize(static_cast<size_t>(job.tensor->bytes));
  QUIRE_RETURN_IF_ERROR(checkpoint_.read(*job.tensor, 0, job.tensor->bytes, buffers.raw.data()));
  auto* out = reinterpret_cast<float*>(job.destination);
  dequantize(job.tensor->dtype, buffers.raw.data(), job.cols, out);
  if (job.rope_head_dim > 0) {
    const std::vector<float> stored(out, out + job.cols);
    for (int64_t i = 0; i < job.cols; ++i) {
      out[i] = stored[static_cast<size_t>(stored_row(i, job.rope_head_dim))];
    }
  }
  return Status();
}

Status WeightLoader::load_piece(const Piece& piece, Buffers& buffers) const {
  const Job& job = *piece.job;
  if (job.is_vector) return load_vector(job, buffers);
  const int64_t first = piece.begin * kPanelRows;
  const int64_t count = std::min(job.rows, piece.end * kPanelRows) - first;
  QUIRE_RETURN_IF_ERROR(read_rows(job, first, count, buffers));
  const unsigned char* rows = job.rope_head_dim > 0 ? buffers.ordered.data() : buffers.raw.data();
  const int64_t size = row_bytes(*job.tensor);
  for (int64_t panel = piece.begin; panel < piece.end; ++panel) {
    const int64_t done = panel * kPanelRows - first;
    pack_panel(job.tensor->dtype,
               job.cols,
               rows + done * size,
               size,
               std::min(kPanelRows, count - done),
               panel,
               job.destination);
  }
  return Status();
}

Result<HugeBuffer> WeightLoader::finish(int num_threads, const LoadProgress& progress) {
  QUIRE_CHECK(buffer_.size() == capacity_);
  QUIRE_RETURN_IF_ERROR(check_requests());
  const std::vector<Piece> pieces = cut_into_pieces();
  auto bytes_of = [](const Piece& piece) {
    const int64_t rows = std::min(piece.job->rows, piece.end * kPanelRows);
    return (rows - piece.begin * kPanelRows) * row_bytes(*piece.job->tensor);
  };
  int64_t total = 0, done = 0;
  for (const Piece& piece : pieces) total += bytes_of(piece);

  std::atomic<size_t> next{0};
  std::mutex mutex;  // guards done, status and the callback
  Status status;
  auto work = [&] {
    Buffers buffers;
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      Status result = load_piece(pieces[i], buffers);
      std::lock_guard lock(mutex);
      if (!result.ok()) {
        status = result;
        next = pieces.size();
      }
      done += bytes_of(pieces[i]);
      if (progress && status.ok()) progress(done, total);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < num_threads; ++i) threads.emplace_back(work);
    work();
  }
  QUIRE_RETURN_IF_ERROR(status);
  QUIRE_RETURN_IF_ERROR(checkpoint_.check_unchanged());
  return std::move(buffer_);
}

}  // namespace quire
