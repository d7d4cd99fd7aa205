//! AWS Signature Version 4 as a pure function: presigned URLs and signed headers, for AWS IoT and every other service.
