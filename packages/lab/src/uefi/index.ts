export { pkcs7Verifier } from "./Pkcs7.ts"
