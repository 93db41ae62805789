// The errors of the API: DOMExceptions by the names that the standard gives them.

export function domException(name, message) {
  return new DOMException(message, name);
}

export const dataError = (message) => domException('DataError', message);
export const invalidState = (message) => domException('InvalidStateError', message);
export const transactionInactive = () =>
  domException(
    'TransactionInactiveError',
    'The transaction is not active: it has finished, or this is not one of its callbacks.',
  );
export const readOnly = () => domException('ReadOnlyError', 'The transaction is read-only.');
export const abortError = (message = 'The transaction was aborted.') => domException('AbortError', message);

/**
 * What the host refused, as the API names it. `retryable` is the host's: true where the same may succeed in a new
 * transaction, as after a restart of the supervisor.
 */
export function fromHostError(error) {
  if (error instanceof DOMException) return error;
  const exception = domException(nameOf(error.code), error.message);
  if (error.retryable) Object.defineProperty(exception, 'retryable', { value: true, enumerable: true });
  return exception;
}

function nameOf(code) {
  switch (code) {
    case 'CONFLICT':
      return 'ConstraintError';
    case 'QUOTA_EXCEEDED':
      return 'QuotaExceededError';
    case 'INVALID':
      return 'DataError';
    default:
      return 'UnknownError';
  }
}

/** After these a transaction goes on where the request's error event is cancelled; after all others it is gone. */
export function concernsOneRequest(error) {
  return ['CONFLICT', 'QUOTA_EXCEEDED', 'INVALID', 'TOO_LARGE'].includes(error.code);
}
