# Says what was understood.
require 'digest'
require 'json'
run lambda { |env|
  body = env['rack.input'].read || ''
  said = { method: env['REQUEST_METHOD'], path: env['PATH_INFO'], query: env['QUERY_STRING'] || '', host: env['HTTP_HOST'],
           a: env['HTTP_X_A'], length: body.bytesize, sha256: Digest::SHA256.hexdigest(body), encoded: true }
  data = JSON.generate(said)
  [200, { 'content-type' => 'application/json', 'content-length' => data.bytesize.to_s }, [data]]
}
